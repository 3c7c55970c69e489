"""Serves connections of clients that speak ``wsthreads.1``. Reads the hello, and then begins or resumes a session.

The *hello* is the first message of the client, and the *welcome* that of the server. A *token* in the welcome lets the
client resume the session later.

A client with a valid token, for the same user and origin, resumes its session. Otherwise the welcome says why not, and
a new session begins. There is one exception: if the server has closed the session, and the client may not know this,
the connection is closed with the same code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Protocol

from wsthreads.config import Config
from wsthreads.errors import CloseCode, PeerError, ProtocolError, is_final
from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import SESSION_KEY, in_context, log_context
from wsthreads.protocol import envelope
from wsthreads.protocol.frames import message_frame
from wsthreads.protocol.hello import read_hello
from wsthreads.protocol.outbox import Outbox
from wsthreads.sessions.carrier import Carrier
from wsthreads.sessions.dialogue import Dialogue
from wsthreads.sessions.moves import BUSY, UNKNOWN, Claim, Handover, origin_of, same_origin
from wsthreads.sessions.secrets import digest

if TYPE_CHECKING:
    from wsthreads.protocol.connection import Connection
    from wsthreads.protocol.handshake import Request
    from wsthreads.rooms.striped import StripedDict
    from wsthreads.sessions.admission import Admission
    from wsthreads.sessions.admitted import Admitted
    from wsthreads.sessions.interface import Handler
    from wsthreads.sessions.life import Life
    from wsthreads.sessions.served import Served
    from wsthreads.sessions.session import Session
    from wsthreads.sessions.suspensions import Suspensions
    from wsthreads.threads.flusher import Flusher
    from wsthreads.threads.scheduling import ScheduledThread, Scheduling

__all__ = ["Reception"]

log = get_logger(__name__)

#: Texts for the log: why a session is not resumed.
WHY = {
    UNKNOWN: "the session or its process has ended",
    "elsewhere": "the session could not move from another process; are its attributes JSON?",
    "user": "the handshake of the session had another user",
    "origin": "the handshake of the session had another origin",
    "counts": "the hello is outdated: the client has acknowledged more messages since",
    "compression": "the session's connection had other permessage-deflate parameters",
}

#: The form of the tokens that the server makes.
_TOKEN = re.compile(r"([\w-]{22})\.[\w-]{22}", re.ASCII)


class _Service(Protocol):
    """The part of `Service` that `Reception` uses."""

    config: Config
    handler: Handler
    admission: Admission
    scheduling: Scheduling
    served: StripedDict[str, Served]
    suspensions: Suspensions
    flusher: Flusher
    path: str

    #: Moves sessions to other processes. None without a broker.
    handover: Handover | None

    def make_session(self, session_id: str, request: Request, channel: Dialogue) -> tuple[Session, Life]:
        """Make a session that is not open yet."""

    def enter(self, session: Session, connection: Connection, dialogue: Dialogue) -> bool:
        """Add a session to the endpoint's list. Returns False if its user is banned. The session is then closing."""

    def leave(self, dialogue: Dialogue) -> None:
        """Move a session without a connection to another process, or end it. For a shutdown. Blocks."""

    def has_session(self, connection: Connection) -> None:
        """Note that a session was resumed over this connection."""

    def disconnected(self, dialogue: Dialogue, connection: Connection) -> None:
        """Note that a connection of the session has ended."""

    def record_refusal(self, request: Request, code: int, reason: str, cause: str) -> None:
        """Count and log a client that gets no session."""

    def count(self, name: str) -> None:
        """Add 1 to a counter."""


class Reception:
    """Begins new sessions, and resumes the sessions of clients with tokens. Any thread.

    The token of a session is ``<id>.<secret>``. No log line and no error contains a token.
    """

    def __init__(self, service: _Service) -> None:
        self._service = service

    def serve(self, client: Admitted, connection: Connection, spoken: str | None) -> None:
        """Serve a client until its connection has ended. The response 101 was already sent.

        `spoken` is the subprotocol of the application.
        """
        carrier, is_new = Carrier(connection), False
        dialogue: Dialogue | None = None
        try:
            wait_s = self._service.config.handshake_timeout_s
            hello = read_hello(carrier.channel, carrier.messages, wait_s, self._service.flusher)
            if hello is not None:
                dialogue, why = self._resume(carrier, hello, client.request, spoken)
                if dialogue is None and hello.token is not None and any(carrier.channel.transport.end_seen()):
                    # the client has left while the server looked for its session
                    carrier.channel.lose("connection lost")
                if dialogue is None and self._has_place(client, carrier):
                    dialogue = self._begin(client, carrier, spoken, why)
                    is_new = dialogue is not None
                if dialogue is None:  # the connection is closing
                    for _ in carrier.messages:
                        pass
        finally:
            if not is_new:
                self._service.handler.abandon(client.session_id)
        if dialogue is None:
            connection.finish()
            connection.hang_up()
        else:
            with in_context(log_context(client.request.environ)), self._service.scheduling.session_thread() as thread:
                self._talk(dialogue, carrier, thread)

    def _talk(self, dialogue: Dialogue, carrier: Carrier, thread: ScheduledThread) -> None:
        """Pass the messages of one connection to its session, until the connection ends."""
        goodbye = self._service.admission.goodbye
        if goodbye is not None:  # the shutdown began after the handshake, and may have missed this session
            self._say_goodbye(dialogue, carrier, *goodbye)
        try:
            dialogue.run()
            if dialogue.read_by(carrier):
                thread.only_reads()
            for message in carrier.messages:
                if thread.is_displaced:
                    thread.runs_handler()
                if not dialogue.pass_by(carrier, message) and not dialogue.take(carrier, message):
                    break
        except PeerError as error:
            carrier.channel.refuse(error)
        except BaseException:
            # An exception here is not an error in the user's code, because the handler logs such errors itself.
            carrier.channel.begin_close(CloseCode.INTERNAL_ERROR, "server error")
            raise
        finally:
            with ExitStack() as steps:  # the steps run in reverse order; if one fails, the others still run
                steps.callback(self._service.disconnected, dialogue, carrier.connection)
                steps.callback(carrier.connection.hang_up)
                steps.callback(self._run_or_leave, dialogue)
                try:
                    dialogue.part(carrier)
                except BaseException:
                    dialogue.drop(carrier)
                    raise

    def _run_or_leave(self, dialogue: Dialogue) -> None:
        """Handle the events that wait after the end of a connection. At a shutdown, the session leaves the process."""
        dialogue.run()
        if self._service.admission.goodbye is not None and not dialogue.is_connected:
            self._service.leave(dialogue)

    def _say_goodbye(self, dialogue: Dialogue, carrier: Carrier, code: int, reason: str) -> None:
        if self._service.handover is None:
            dialogue.begin_close(code, reason)
        else:
            carrier.channel.part(code, reason)

    # New sessions

    def _has_place(self, client: Admitted, carrier: Carrier) -> bool:
        """Whether a new session may begin. If it may not, the connection is closing."""
        if carrier.channel.ending is not None:
            return False
        refusal = self._service.admission.shortage(client.network) if client.is_beyond else None
        if refusal is None:
            return True
        code, reason = CloseCode.TRY_AGAIN_LATER, refusal.reason
        if carrier.channel.begin_close(code, reason):
            self._service.record_refusal(client.request, code, reason, refusal.cause)
        return False

    def _begin(self, client: Admitted, carrier: Carrier, spoken: str | None, why: str) -> Dialogue | None:
        """Begin a session. Returns None if the client has left.

        `why` tells why the client's old session was not resumed. It is empty if there was none.
        """
        service, outbox = self._service, carrier.channel.outbox
        config, suspensions = service.config, service.suspensions
        keeps = config.resume_s > 0
        if keeps:  # until the welcome is sent, messages to the session wait
            outbox = Outbox.apart(
                outbox.flusher,
                max_bytes=config.max_outbox_bytes,
                timeout_s=config.send_timeout_s,
                encoding=outbox.encoding,
            )
        dialogue = Dialogue(
            outbox,
            subprotocol=spoken,
            handler=service.handler,
            keeper=suspensions,
            most_bytes=config.max_message_bytes + config.max_resume_bytes,
        )
        session, life = service.make_session(client.session_id, client.request, dialogue)
        dialogue.begin(session, life, most_requests=config.max_pending_requests)
        if keeps:
            outbox.keep(config.max_resume_bytes, on_stuck=dialogue.on_stuck)
        carrier.connection.before_end = partial(dialogue.hear_out, carrier)
        try:
            if keeps:  # the client may come back as soon as it has the welcome
                service.enter(session, carrier.connection, dialogue)
            with service.scheduling.opening():
                why_not = dialogue.attach(carrier, self._welcome(session.id, spoken, why=why))
            if why_not:
                if dialogue.ending is not None:
                    carrier.channel.begin_close(*dialogue.ending)
                dialogue.break_off(CloseCode.ABNORMAL)
                return None
            is_refused = not keeps and not service.enter(session, carrier.connection, dialogue)
            dialogue.start(is_refused=is_refused)
        except BaseException:
            dialogue.break_off(CloseCode.INTERNAL_ERROR)
            raise
        return dialogue

    def _welcome(
        self, session_id: str, spoken: str | None, *, why: str = "", is_resumed: bool = False
    ) -> Callable[[int, str | None], bytes]:
        """Returns a function that makes the frame of the welcome.

        The function gets the number of messages that were taken, and the next secret.
        """
        config = self._service.config

        def make(received: int, secret: str | None) -> bytes:
            message = envelope.Welcome(
                resumed=is_resumed,
                token=None if secret is None else f"{session_id}.{secret}",
                received=received,
                resume_ms=round(1000 * config.resume_s),
                heartbeat_ms=round(1000 * config.ping_interval_s),
                timeout_ms=round(1000 * config.ping_timeout_s),
                protocol=spoken,
                why=why or None,
            )
            return message_frame(envelope.welcome(message))

        return make

    # Resumed sessions

    def _resume(
        self, carrier: Carrier, hello: envelope.Hello, request: Request, spoken: str | None
    ) -> tuple[Dialogue | None, str]:
        """Resume the session that the client's token names, over this connection.

        If this is not possible, returns None, and why.

        The reason is empty for a client without a token. After a failure, the connection may be closing.
        """
        if hello.token is None:
            return None, ""
        session_id, _, secret = hello.token.partition(".")
        wanted = digest(secret)
        dialogue = self._find(session_id, wanted)
        if dialogue is not None:
            why = self._why_not(dialogue, request, carrier)
        else:
            dialogue, why = self._fetch(carrier, hello.received, session_id, wanted, request)
        if dialogue is not None and not why:
            why = self._attach(dialogue, carrier, hello, wanted, request, spoken)
            if not why:
                self._service.has_session(carrier.connection)
                return dialogue, ""
        if why == BUSY:
            carrier.channel.begin_close(CloseCode.TRY_AGAIN_LATER, "the session is moving to this process")
        if why == UNKNOWN:
            self._tell_end(dialogue, carrier, session_id, wanted, request)
        if carrier.channel.ending is None:
            self._service.count(f"resumes_refused_{why}")
            asked, words = _shown_id(hello.token), f"{why}: {WHY.get(why, '')}".removesuffix(": ")
            context = log_context(request.environ)
            log.info("session %s on %s is not resumed: %s", asked, self._service.path, words, extra=context)
        return None, why

    def _fetch(
        self, carrier: Carrier, received: int, session_id: str, wanted: str, request: Request
    ) -> tuple[Dialogue | None, str]:
        """Move a session to this process from another one. Returns the session, or None and the reason."""
        handover, service = self._service.handover, self._service
        served = service.served.get(session_id)
        if served is not None and served.dialogue is not None and served.dialogue.is_moving:
            return None, BUSY  # `_find` may have failed because the secret in this hello is outdated
        if handover is None or served is not None or service.suspensions.record(session_id, wanted):
            return None, UNKNOWN
        encoding = carrier.channel.outbox.encoding
        claim = Claim(session_id, wanted, received, request.user, origin_of(request), encoding)
        found = handover.fetch(claim, request)
        if isinstance(found, str):
            return None, found
        if isinstance(found, tuple):
            carrier.channel.begin_close(*found)
            return None, UNKNOWN
        if service.admission.goodbye is not None:  # the shutdown may have missed this session
            service.leave(found.dialogue)
            return None, BUSY
        return found.dialogue, ""

    def _attach(
        self,
        dialogue: Dialogue,
        carrier: Carrier,
        hello: envelope.Hello,
        wanted: str,
        request: Request,
        spoken: str | None,
    ) -> str:
        session_id = dialogue.session.id
        try:  # checked before the session is changed
            why = BUSY if dialogue.is_moving else dialogue.judge_received(hello.received)
        except ProtocolError as error:
            carrier.channel.refuse(error)
            why = "counts"
        if why:
            return why
        request.environ[SESSION_KEY] = session_id
        if request.expires_at is not None:
            dialogue.session._expire_at(request.expires_at)
        dialogue.session._check_expiry()  # if the session has expired, the client gets the close code
        carrier.connection.before_end = partial(dialogue.hear_out, carrier)
        carrier.connection.is_resumed = True
        welcome = self._welcome(session_id, spoken, is_resumed=True)
        try:
            with self._service.scheduling.opening():
                return dialogue.attach(carrier, welcome, received=hello.received, shown=wanted, request=request)
        except ProtocolError as error:
            carrier.channel.refuse(error)
            return "counts"

    def _find(self, session_id: str, wanted: str) -> Dialogue | None:
        """The session with this id, if the secret with this digest is valid. None otherwise."""
        served = self._service.served.get(session_id)
        dialogue = None if served is None else served.dialogue
        return dialogue if dialogue is not None and dialogue.may_resume(wanted) else None

    def _why_not(self, dialogue: Dialogue, request: Request, carrier: Carrier) -> str:
        """Why a client with the session's token cannot resume the session here. Empty if it can."""
        session = dialogue.session
        if session.user != request.user:
            return "user"
        if not same_origin(origin_of(session.request), origin_of(request)):
            return "origin"
        return "" if dialogue.outbox.encoding is carrier.channel.outbox.encoding else "compression"

    def _tell_end(
        self, dialogue: Dialogue | None, carrier: Carrier, session_id: str, wanted: str, request: Request
    ) -> None:
        """Close the connection like the session, if the server has closed the session and the client may not know this.
        """
        if dialogue is not None:
            ending = None if dialogue.is_known_to_have_ended else dialogue.ending
        else:
            record = self._service.suspensions.record(session_id, wanted)
            if record is None or record.user != request.user:
                return
            if not same_origin(origin_of(record.request), origin_of(request)):
                return
            ending = record.code, record.reason
        if ending is not None and is_final(ending[0]):
            carrier.channel.begin_close(*ending)


def _shown_id(token: str) -> str:
    """The id in a token, for the log. Shows nothing of an invalid token, because its text may have a secret."""
    found = _TOKEN.fullmatch(token)
    return "?" if found is None else found[1]
