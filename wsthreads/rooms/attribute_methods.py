"""The methods that read and change a room's attributes. All handles on rooms have them, with or without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wsthreads.errors import RoomStateError, brief
from wsthreads.rooms.json_text import value_of

if TYPE_CHECKING:
    from wsthreads.rooms.attributes import Attributes

__all__ = ["AttributeMethods"]


class AttributeMethods:
    """Base class of handles: reads and changes the attributes of the room `_name`. Any thread."""

    __slots__ = ()

    _name: str
    #: The fencing number of the ownership, if this is the handle of an owned room. None for other handles.
    _fence: int | None = None

    @property
    def _attributes(self) -> Attributes:
        raise NotImplementedError

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute of the room: a value that all members share.

        `key` is text of 1 to 256 characters. `value` is a JSON value; None is allowed. All attributes of a room
        together have at most `max_room_bytes` as JSON. Attributes are kept while the room has members, and for
        `room_keep_s` after that.

        Over Redis, all processes share the attributes, and the call waits at most a second for Redis.

        Raises `RoomStateError` for an invalid key or value. Over Redis, also raises `BrokerError`. If the error's
        `is_unknown` is true, the value may have been set.
        """
        attributes = self._attributes
        attributes.put(self._name, key, attributes.text_of(value), self._fence)

    def get_attribute(self, key: str, default: Any = None) -> Any:
        """An attribute of the room, or `default`. Each call returns a copy.

        Over Redis, the call waits at most a second for Redis. While Redis is unavailable, the call returns the last
        value that this process knows. It raises `BrokerError` if this process knows no value.
        """
        text = self._attributes.get(self._name, key)
        return default if text is None else value_of(text)

    def attributes(self) -> dict[str, Any]:
        """A copy of all attributes of the room. Over Redis, waits and raises like `get_attribute`."""
        return {key: value_of(text) for key, text in self._attributes.all(self._name).items()}

    def update_attribute(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace the value of an attribute by ``change(value)``, as one step. Returns the new value.

        `change` gets the value, or None if there is none, and returns the new value. It should be quick. It may be
        called more than once, so it must have no other effects. It must not set the same attribute. If it raises an
        exception, the value stays as it was. Waits and raises like `set_attribute`. If other calls change the attribute
        each time while `change` runs, this raises `RoomStateError` after 5 seconds.
        """
        if not callable(change):
            raise RoomStateError(f"an update needs a function that makes the new value, not {brief(change)}")
        attributes = self._attributes

        def change_text(text: str | None) -> str:
            return attributes.text_of(change(None if text is None else value_of(text)))

        return value_of(attributes.update(self._name, key, change_text, self._fence))

    def delete_attribute(self, key: str) -> bool:
        """Remove an attribute. Returns False if there was none. Waits and raises like `set_attribute`."""
        return self._attributes.delete(self._name, key, self._fence)

    # These two methods are for scripts. Python cannot call a script's function in the middle of an update. So the
    # script itself repeats the swap until it succeeds.

    def _attribute_text(self, key: str) -> str | None:
        """The current value of an attribute, as JSON text. Raises `BrokerError` if it is not known."""
        return self._attributes.fresh_text(self._name, key)

    def _swap_attribute(self, key: str, before: str | None, after: str, claim: str = "") -> tuple[bool, str | None]:
        """Set an attribute to `after`, but only if its value is `before` now.

        Returns whether the attribute was set, and its current value. All values are JSON texts.

        `claim` is as in `Attributes.swap`.
        """
        attributes = self._attributes
        return attributes.swap(self._name, key, before, attributes.text_of(after), self._fence, claim)
