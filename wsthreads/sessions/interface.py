"""The interface of handlers: how an endpoint uses the user's code, in Python and in JavaScript."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from wsthreads.errors import UsageError, brief

if TYPE_CHECKING:
    from wsthreads.protocol.handshake import Request
    from wsthreads.protocol.readers import Reader
    from wsthreads.rooms.handles import Room
    from wsthreads.rooms.mailboxes import RoomCall
    from wsthreads.rooms.presence import PresenceChanges
    from wsthreads.rooms.rooms import Rooms
    from wsthreads.sessions.handshake_results import Verdict
    from wsthreads.sessions.session import Session

__all__ = ["FAILED", "NO_HANDLER", "NO_SCRIPT_HANDLER", "Answer", "Handler", "json_attributes"]

#: The error text that the client gets for a request without a handler, or whose handler has failed.
NO_HANDLER = "no handler: the server has no on_request"
NO_SCRIPT_HANDLER = "no handler: the server has no onRequest"
FAILED = "failed"


class Answer(Protocol):
    """Gets the answer to one request of the client.

    Only the first call has an effect. Any thread. Never blocks for long.
    """

    def done(self, value: str | bytes | None) -> None:
        """Send the result of a request that was handled."""

    def failed(self, text: str) -> None:
        """Send an error for a request that was not handled. The client gets the text."""


def _nobody(error: BaseException | str) -> None:
    """The default of `on_failure`. Does nothing."""


def _nothing_changed() -> None:
    """The default of `on_loaded`. Does nothing."""


class Handler(ABC):
    """A handler in either language, as an endpoint uses it.

    The session's thread calls `handshake`, `open`, `message`, `catch_up` and `close`, in this order. For a session that
    speaks ``wsthreads.1``, calls of `request`, `suspend` and `resume` come between these, and other threads may make
    the calls. Calls for different sessions may run at the same time. `open`, `message` and `request` may return before
    the user's function has run, but the calls of one session keep their order and never overlap. No method raises an
    error of the user's code, except that `handshake` raises `HandshakeRefused`. Methods that are not abstract are
    optional.
    """

    #: The name for logs and for the dashboard: the script's file name, the class or the module.
    name: str
    #: Those functions of `HOOKS`, or of `SCRIPT_HOOKS`, that the handler has.
    hooks: frozenset[str]
    #: How many times in a second `on_tick` is called. None without `on_tick`. May change when `hooks` changes.
    tick_rate: float | None = None
    #: `call_rooms` gets at most this many calls together. If this is 1, several threads call `call_rooms`. Otherwise
    #: only one thread does.
    room_batch = 1
    #: Whether calls of the handler wait for each other in a queue, as those of a script do.
    has_queue = False
    #: The endpoint sets this function. The handler calls it when `hooks` or `tick_rate` have changed.
    on_loaded: Callable[[], None] = staticmethod(_nothing_changed)
    #: The endpoint's path, for logs. The endpoint sets it.
    endpoint_path = ""
    #: The handler calls this function for each logged failure of the user's code, in any thread. It gets the exception,
    #: or the error text of a script.
    on_failure: Callable[[BaseException | str], None] = staticmethod(_nobody)

    def use_rooms(self, rooms: Rooms[Any]) -> None:  # noqa: B027
        """Called once by the endpoint, with its rooms, before any other method."""

    def start(self) -> None:  # noqa: B027
        """Start what the handler needs in this process, such as a thread or an interpreter. Idempotent. Any thread."""

    def stop(self, timeout_s: float) -> None:  # noqa: B027
        """Stop what `start` has started. Waits at most `timeout_s`. Called once, after all sessions have ended."""

    @abstractmethod
    def handshake(self, request: Request, session_id: str) -> Verdict:
        """Accept a client, or raise `HandshakeRefused`.

        Called before the response 101 is sent. `session_id` is the id of the future session.

        If the verdict has a `refusal`, no other method is called for this client.
        """

    def abandon(self, session_id: str) -> None:  # noqa: B027
        """Drop the data that `handshake` has kept for an accepted client whose session was never opened."""

    @abstractmethod
    def open(self, session: Session) -> None:
        """Call `on_open`. If it fails, close the session with 1011."""

    @abstractmethod
    def message(self, session: Session, message: str | bytes) -> None:
        """Call `on_message`.

        May block while earlier messages of the session wait. During this time, no further messages are read from the
        client.
        """

    def request(self, session: Session, message: str | bytes, answer: Answer) -> None:
        """Call `on_request`. Pass the result to `answer`, at any time, in any thread. May block like `message`."""
        answer.failed(NO_HANDLER)

    def suspend(self, session: Session) -> Any:  # noqa: B027
        """Call `on_suspend`, because the session has lost its connection.

        Waits until the function has returned. Returns the function's result, which is for `export_attributes`.
        """

    def resume(self, session: Session) -> None:  # noqa: B027
        """Call `on_resume`, because the session has a connection again.

        Waits until the user's function has returned.
        """

    def export_attributes(self, session: Session, returned: Any) -> str:
        """The session's attributes, as the JSON text of an object. Another process passes them to `adopt`.

        `returned` is the result of `suspend`. Raises `UsageError` if an attribute is not JSON. Its text names the
        attribute.
        """
        return json_attributes(session.attributes if returned is None else returned)

    def adopt(self, session: Session, attributes: dict[str, Any]) -> None:
        """Take a session with these attributes from another process.

        Called instead of `open`, before `resume`.
        """
        session.attributes.update(attributes)

    def reader(
        self,
        session: Session,
        descriptor: int,
        *,
        due: Callable[[], tuple[int, int] | None] | None = None,
    ) -> Reader | None:
        """Returns a reader that handles the session's messages without Python.

        None if `message` must be called for all of them.

        `descriptor` is the socket, or -1 if the socket cannot be read directly. Called once, after `open`. For a
        session that speaks ``wsthreads.1``, called once for each connection, with `due`. Such a reader takes no message
        that begins with DLE. It calls `due` before it reads and before it returns. `due` returns how many messages, or
        bytes, the reader may take before it calls `due` again. If `due` returns None, the reader stops.
        """
        return None

    def catch_up(self, session: Session, timeout_s: float | None = None) -> bool:
        """Wait until all messages that have arrived are handled. Called when the client has ended the session.

        Tests pass `timeout_s`. Returns False after that time.
        """
        return True

    def attributes(self, session: Session) -> dict[str, Any]:
        """A copy of the session's attributes. Any thread. Never blocks for long.

        Raises `IsolateError` if a script cannot answer now.
        """
        return dict(session.attributes)

    def shown(self, text: str) -> str:
        """Hide the secrets of a script in a text of a session or a room, so that the dashboard may show the text.

        Any thread.
        """
        return text

    def settle(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` until all calls that were made so far are done.

        Returns False if some are not. For tests.
        """
        return True

    def heap_bytes(self) -> int | None:
        """The size of a script's heap. None if there is no script, or if the size is not known. Does not block."""
        return None

    def probe(self) -> None:  # noqa: B027
        """If the handler `has_queue`, measure how long a call that is made now waits in the queue. Does not block."""

    def recent_waits(self) -> tuple[float, float] | None:
        """The median and the longest wait that `probe` has measured in the last minute, in seconds.

        None if there is none.
        """
        return None

    def presence(self, room: Room, changes: PresenceChanges) -> str | bytes | None:
        """Call `on_presence`. Returns a message for the members of the room in this process, or None.

        Called by only one thread at a time, and only if `hooks` has ``on_presence``. May block.
        """
        return None

    def call_rooms(self, calls: Sequence[RoomCall]) -> None:
        """Call the function ``hook`` of each call: `on_room_start`, `on_post`, `on_tick` or `on_room_end`.

        Calls for one room are in order, and must not overlap. Further calls for a room come only after all earlier ones
        are done. Right before each function, the handler calls ``call.begin()``. If this returns false, the function
        must not be called. In any case, the handler calls ``call.done()`` once, at any time, in any thread. If the
        function does not exist, it calls ``call.done()`` at once.
        """
        for call in calls:
            call.done()

    @abstractmethod
    def close(self, session: Session, code: int, reason: str) -> None:
        """Call `on_close`. The session is already closed.

        Waits until the user's function has returned, or until it surely never will.
        """


def json_attributes(attributes: Any) -> str:
    """Encode the attributes of a session as the JSON text of an object.

    Raises `UsageError` for values that are not JSON.
    """
    if not isinstance(attributes, dict):
        kind = type(attributes).__name__
        raise UsageError(f"the result of on_suspend must be a dict of JSON values or None, not {kind}")
    for name, value in attributes.items():
        try:
            if type(name) is not str or json.loads(json.dumps(value, allow_nan=False)) != value:
                raise ValueError("JSON would change the value")
        except Exception as error:  # the class of the value may raise anything
            raise UsageError(f"the attribute {brief(name)} is not JSON: {error}") from None
    return json.dumps(attributes, ensure_ascii=False, allow_nan=False)
