"""The methods for a room's attributes, for the handles in a server and in programs without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wsthreads.errors import RoomStateError, brief
from wsthreads.rooms.json_text import value_of

if TYPE_CHECKING:
    from wsthreads.rooms.attributes import Attributes

__all__ = ["AttributeMethods"]


class AttributeMethods:
    """Methods of a handle with a `_name`. Any thread."""

    __slots__ = ()

    _name: str
    #: The fencing number of the ownership that writes. None for handles that are not of an ownership.
    _fence: int | None = None

    @property
    def _attributes(self) -> Attributes:
        raise NotImplementedError

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute of the room: a value that all members share.

        `key` is text of 1 to 256 characters. `value` is a JSON value; None is allowed. All attributes of a room
        together may have `max_room_bytes` as JSON. They live while the room has members, and `room_keep_s` longer.

        Over Redis, all processes share the attributes, and this waits for Redis, at most a second. Raises
        `RoomStateError` for an invalid key or value. Over Redis, raises `BrokerError`; its `is_unknown` tells whether
        the value may have been set nevertheless.
        """
        attributes = self._attributes
        attributes.put(self._name, key, attributes.text_of(value), self._fence)

    def get_attribute(self, key: str, default: Any = None) -> Any:
        """An attribute of the room, or `default`. Each call returns a copy.

        Over Redis, this waits for Redis, at most a second. While Redis is unavailable, it returns the last value that
        this process knows, and raises `BrokerError` if it knows none.
        """
        text = self._attributes.get(self._name, key)
        return default if text is None else value_of(text)

    def attributes(self) -> dict[str, Any]:
        """All attributes of the room. A copy; over Redis, as with `get_attribute`."""
        return {key: value_of(text) for key, text in self._attributes.all(self._name).items()}

    def update_attribute(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace the value of an attribute by ``change(value)``, as one step. Returns the new value.

        `change` gets the value, or None if there is none, and returns the new value. It should be quick. It may be
        called more than once, so it must have no other effects, and it must not set the same attribute. If it raises,
        nothing is changed. Waits and raises like `set_attribute`. If others keep changing the attribute while `change`
        runs, this raises `RoomStateError` after 5 seconds.
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

    # For scripts: Python cannot call a function of a script in the middle of an update.

    def _attribute_text(self, key: str) -> str | None:
        """The current value of an attribute, as JSON text. Raises `BrokerError` if it is not known."""
        return self._attributes.fresh_text(self._name, key)

    def _swap_attribute(self, key: str, before: str | None, after: str, claim: str = "") -> tuple[bool, str | None]:
        """Set an attribute to `after` if it is `before` now.

        Returns whether it was, and the current value. All are JSON texts.

        `claim` is as in `Attributes.swap`.
        """
        attributes = self._attributes
        return attributes.swap(self._name, key, before, attributes.text_of(after), self._fence, claim)
