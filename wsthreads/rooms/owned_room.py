"""The handle that a handler gets for a room that this process owns."""

from __future__ import annotations

from wsthreads.rooms.handles import AllRooms, Room

__all__ = ["OwnedRoom"]


class OwnedRoom(Room):
    """The room that `on_tick`, `on_post`, `on_room_start` and `on_room_end` get. It is a handle for one ownership."""

    __slots__ = ("_fence",)

    _fence: int

    def __init__(self, name: str, rooms: AllRooms, fence: int) -> None:
        super().__init__(name, rooms)
        self._fence = fence

    @property
    def fencing_number(self) -> int:
        """Identifies this ownership. Each later ownership of the room, in any process, has a higher number."""
        return self._fence

    def is_owner(self) -> bool:
        """Whether this process still owns the room, with this fencing number. True until `on_room_end` has returned.

        Over Redis, this becomes False when this process has not reached Redis for some seconds.
        """
        return self._rooms.ownership.is_owner(self._name, self._fence)
