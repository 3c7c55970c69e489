"""Moves sessions between processes. This is the part of an endpoint that `brokers.handover` uses.

A session that leaves this process has no connection. Its turn is taken, so no function of the handler is called for it.
The session stays in the endpoint's list of sessions until the other process can take it.

A session that arrives is added to the list before it is certain that this process gets the session. Until that is
certain, its turn is taken, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wsthreads.config import Config
from wsthreads.errors import CloseCode, IsolateError, ProtocolError, UsageError
from wsthreads.loggers import get_logger
from wsthreads.origins import parse_origin
from wsthreads.protocol.handshake import Request
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.transport import NOWHERE
from wsthreads.sessions.dialogue import Dialogue
from wsthreads.sessions.secrets import Secrets
from wsthreads.sessions.served import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wsthreads.protocol.encoding import Encoding
    from wsthreads.rooms.striped import StripedDict
    from wsthreads.sessions.interface import Handler
    from wsthreads.sessions.life import Life
    from wsthreads.sessions.session import Channel, Session
    from wsthreads.sessions.suspensions import Suspensions
    from wsthreads.threads.flusher import Flusher

__all__ = [
    "BUSY",
    "UNKNOWN",
    "Arriving",
    "CannotMove",
    "Claim",
    "Departing",
    "Ended",
    "Handover",
    "Moves",
    "origin_of",
    "same_origin",
]

log = get_logger(__name__)

#: No process has the session, because it has ended, or its process was killed.
UNKNOWN = "unknown"

#: A process has the session, but cannot hand it over now. The client must try again.
BUSY = "busy"


class CannotMove(UsageError):
    """A session has ended, because it cannot move to another process.

    The client has one of the `secrets`, and may come back for `left_s` more seconds.
    """

    def __init__(self, message: str, secrets: list[str], left_s: float) -> None:
        super().__init__(message)
        self.secrets = secrets
        self.left_s = left_s


class Claim(NamedTuple):
    """What a client that comes back has said about its session, in its hello and its handshake."""

    session_id: str
    #: The digest of the client's secret.
    secret: str
    #: How many messages the client has received.
    received: int
    user: str | None
    origin: str | None
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Ended:
    """How the server has closed a session. If the client comes back to another process, that process tells the client.

    For a client that comes back to this process, there is a `suspensions.Record`.
    """

    code: int
    reason: str
    #: The digests of the session's secrets.
    secrets: list[str]
    user: str | None
    origin: str | None


class Handover(Protocol):
    """Moves sessions to other processes. `brokers.handover.Handover` is the only one."""

    def fetch(self, claim: Claim, request: Request) -> Arriving | str | tuple[int, str]:
        """Take the session of a client that has come back from another process.

        If this is not possible, returns why. With `BUSY`, the client must try again. With code and reason, the session
        was closed with these. Can block for seconds.
        """

    def export(self, session_id: str) -> bool:
        """Let other processes take a session, and forget it here. Returns False if it stays here. Blocks."""

    def take_no_more(self) -> None:
        """Take no more sessions from other processes, because this process is ending."""

    def put(self, calls: Iterable[Callable[[], object]]) -> None:
        """Let other threads make these calls."""

    def start(self) -> None:
        """From now on, end sessions of processes that have ended, if the clients of these sessions do not come back.

        Idempotent.
        """

    def stop(self, timeout_s: float) -> None:
        """End the threads. Before, tell other processes how this process has closed its sessions."""

    def give_up(self) -> None: ...


class _Service(Protocol):
    """The part of `Service` that `Moves` uses."""

    config: Config
    handler: Handler
    served: StripedDict[str, Served]
    suspensions: Suspensions
    flusher: Flusher
    left_behind: list[str]

    def make_session(self, session_id: str, request: Request, channel: Channel) -> tuple[Session, Life]: ...


#: The reason for which a session does not leave the process now.
HANDLER_RUNS = "a function of the handler is still running"


def origin_of(request: Request) -> str | None:
    """The header Origin of a handshake. None if it has none."""
    return request.get_header("Origin")


def same_origin(before: str | None, now: str | None) -> bool:
    """Whether two handshakes have the same Origin, or both have none."""
    if before is None or now is None:
        return before is now
    return before == now or (parse_origin(before) is not None and parse_origin(before) == parse_origin(now))


def _nobody_cares(reason: str) -> None:
    """The default of `on_stuck`: ignore that too many bytes wait for the client.

    This process may not get the session at all.
    """


class Moves:
    """Moves the sessions of one endpoint. Any thread."""

    def __init__(self, service: _Service) -> None:
        self._service = service

    def judge(
        self, session_id: str, secret: str, user: str | None, origin: str | None, encoding: str, received: int
    ) -> str | tuple[int, str]:
        """Why a client may not resume a session of this process. "" if the client may.

        Returns `UNKNOWN` if there is no such session. Returns a code and a reason for the client in two cases: the
        server has closed the session, or the client says that it has `received` more messages than the server has sent.
        `secret` is a digest. `encoding` is the name of an encoding. Does not block.
        """
        dialogue = self._find(session_id)
        if dialogue is None or not dialogue.may_resume(secret):
            record = self._service.suspensions.record(session_id, secret)
            is_theirs = record is not None and record.user == user
            if record is None or not is_theirs or not same_origin(origin_of(record.request), origin):
                return UNKNOWN
            return record.code, record.reason
        session = dialogue.session
        if session.user != user:
            return "user"
        if not same_origin(origin_of(session.request), origin):
            return "origin"
        if dialogue.outbox.encoding.name != encoding:
            return "compression"
        try:
            return dialogue.judge_received(received)
        except ProtocolError as error:
            return int(error.close_code), str(error)

    def ended(self) -> list[tuple[str, Ended, float]]:
        """The sessions that the server has closed.

        For each, the id, the ending, and for how many more seconds the ending is kept.
        """
        return [
            (name, Ended(each.code, each.reason, digests, each.user, origin_of(each.request)), left_s)
            for name, each, left_s in self._service.suspensions.records()
            if (digests := each.secrets.export())
        ]

    def left_behind(self) -> list[str]:
        """Why sessions have not left the process at a shutdown. One text for each session."""
        dialogues = [served.dialogue for served in self._service.served.snapshot().values()]
        here = [each.why_here for each in dialogues if each and not each.is_over and each.ending is None]
        return [why or HANDLER_RUNS for why in (*self._service.left_behind, *here)]

    def stays(self, session_id: str, why: str) -> None:
        """Note why a session does not leave the process now."""
        dialogue = self._find(session_id)
        if dialogue is not None:
            dialogue.why_here = why

    def depart(self, session_id: str, timeout_s: float) -> Departing | None:
        """Suspend a session that is to move, and take the session's turn, so that no other thread calls the handler.

        Returns None if there is no such session, or if a call of the handler takes too long. If the session cannot
        move, it is ended, and `CannotMove` is raised.
        """
        dialogue = self._find(session_id)
        if dialogue is None:
            return None
        dialogue.why_here = HANDLER_RUNS
        if not dialogue.hold(timeout_s):
            return None
        departing = Departing(self._service, dialogue)
        try:
            departing.prepare()
        except UsageError as error:
            departing.fail()
            raise CannotMove(str(error), departing.secrets, departing.left_s) from error
        except IsolateError as error:  # the script is busy
            departing.stay(str(error))
            return None
        except BaseException:
            departing.stay("an error")
            raise
        dialogue.why_here = "Redis does not answer"
        return departing

    def arrive(self, state: Any, request: Request | None, encoding: Encoding) -> Arriving:
        """Make a session from a `SessionState`. It has an outbox, but no connection.

        `request` is the handshake of the client that has come back. It is None if the session arrives only to be ended.
        """
        return Arriving(self._service, state, request, encoding)

    def _find(self, session_id: str) -> Dialogue | None:
        served = self._service.served.get(session_id)
        return None if served is None else served.dialogue


class Departing:
    """A session that is about to leave this process."""

    def __init__(self, service: _Service, dialogue: Dialogue) -> None:
        self._service = service
        self._dialogue = dialogue
        self._attributes = "{}"
        self.session: Any = dialogue.session
        self.outbox = dialogue.outbox
        #: For how many more seconds the session waits for its client.
        self.left_s = service.suspensions.left_s(dialogue)

    @property
    def secrets(self) -> list[str]:
        """The digests of the session's secrets."""
        return self._dialogue.secrets.export()

    def prepare(self) -> None:
        """Export the attributes. Raises `UsageError` if they are not JSON."""
        self._attributes = self._service.handler.export_attributes(self.session, self._dialogue.returned)

    def state(self) -> dict[str, Any]:
        """The fields of `SessionState`, except those of the rooms and the outbox. Does not block."""
        session, dialogue = self.session, self._dialogue
        return {
            "id": session.id,
            "secrets": self.secrets,
            "user": session.user,
            "origin": origin_of(session.request),
            "encoding": dialogue.outbox.encoding.name,
            "subprotocol": dialogue.subprotocol,
            "attributes": self._attributes,
            "opened_at": session.opened_at,
            "expires_at": session.expires_at,
            "received": dialogue.received,
            "heard": dialogue.heard,
            **dialogue.requests.export(),
            "messages": [],  # empty, because all messages that were taken have been handled
        }

    def leave(self) -> tuple[int, str] | None:
        """Forget the session, without on_close. If it was closed during the move, returns the code and the reason."""
        ending = self._dialogue.vanish()
        self._service.handler.abandon(self.session.id)
        return ending

    def stay(self, why: str) -> None:
        """Continue the session as if nothing had happened."""
        log.debug("session %s does not move now: %s", self._dialogue.session.id, why)
        self._dialogue.why_here = why
        self._dialogue.let_go()

    def fail(self) -> None:
        """End the session, because it cannot move."""
        self._dialogue.begin_close(CloseCode.ABNORMAL, "cannot move to another process")
        self._dialogue.let_go()


class Arriving:
    """A session that is about to move to this process. It has no connection yet."""

    def __init__(self, service: _Service, state: Any, request: Request | None, encoding: Encoding) -> None:
        config = service.config
        self._service = service
        self._state = state
        if request is None:
            request = Request({})
            request.user = state.user
        outbox = Outbox(
            NOWHERE,
            service.flusher,
            max_bytes=config.max_outbox_bytes,
            timeout_s=config.send_timeout_s,
            on_stuck=_nobody_cares,
            encoding=encoding,
        )
        self.dialogue = Dialogue(
            outbox,
            subprotocol=state.subprotocol,
            handler=service.handler,
            keeper=service.suspensions,
            most_bytes=config.max_message_bytes + config.max_resume_bytes,
        )
        self.dialogue.is_moving = True
        self.dialogue.secrets = Secrets(state.secrets)  # a client with one of these secrets gets `BUSY`
        session, self._life = service.make_session(state.id, request, self.dialogue)
        session.attributes = {}
        session.opened_at = state.opened_at
        self.session: Any = session
        self.dialogue.begin(session, self._life, most_requests=config.max_pending_requests)

    def appear(self) -> None:
        """Add the session to the endpoint's list. Does not block."""
        self._service.served.put(self.session.id, Served(self.session, None, self.dialogue))

    def settle(self, acknowledged: int, frames: list[bytes]) -> None:
        """Make the session a suspended session of this process.

        Called when it is certain that the session has moved.
        """
        state, dialogue, config = self._state, self.dialogue, self._service.config
        dialogue.outbox.keep(
            config.max_resume_bytes, on_stuck=dialogue.on_stuck, acknowledged=acknowledged, frames=frames
        )
        self._life.take_over()
        try:
            self._service.handler.adopt(self.session, json.loads(state.attributes))
        except Exception:
            log.exception("session %s cannot move to this process", self.session.id)
            dialogue.begin_close(CloseCode.INTERNAL_ERROR, "server error")
        dialogue.settle(state.received, state.heard)
        dialogue.requests.import_(state.asked, state.unanswered)
        if state.expires_at is not None:
            self.session._expire_at(state.expires_at)
        dialogue.let_go()

    def drop(self) -> None:
        """Undo `appear`, because the session has not moved to this process."""
        served = self._service.served.get(self.session.id)
        if served is not None and served.session is self.session:
            self._service.served.remove(self.session.id, served)
        self.dialogue.discard()

    def end(self, code: int, reason: str, *, has_lapsed: bool = False) -> None:
        """End the session, with on_close.

        Called after `settle`. With `has_lapsed`, the session's client did not come back in time.
        """
        if has_lapsed:
            self.dialogue.has_lapsed = True
        self.dialogue.begin_close(code, reason)
