"""Serves the connections of one endpoint, each in its own thread, from the response 101 to the end of TCP.

The order for an accepted client: send the 101, make the session, add it to its user's sessions, `on_open`, pass
messages to the handler, end the sending side of TCP, `on_close`, leave the rooms, end TCP. A client that is refused
with a close code gets the 101 and a close frame, but no session. A client whose user was banned after the handshake
gets the same.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from time import monotonic, sleep
from typing import Any

from wsthreads.config import Config
from wsthreads.errors import CloseCode
from wsthreads.loggers import get_logger
from wsthreads.monitoring.failures import exc_info_of
from wsthreads.monitoring.logs import in_context, log_context, printable
from wsthreads.monitoring.metrics import Ledger, Metrics
from wsthreads.protocol.connection import Connection
from wsthreads.protocol.deflate import Agreement
from wsthreads.protocol.envelope import SUBPROTOCOL
from wsthreads.protocol.handshake import Request, choose_subprotocol
from wsthreads.protocol.hints import foreign_protocol
from wsthreads.protocol.wsgi_servers import end_socket, log_upgrade
from wsthreads.rooms.rooms import Rooms
from wsthreads.rooms.roster import LOST_CODES
from wsthreads.rooms.striped import StripedDict
from wsthreads.sessions.admission import Admission
from wsthreads.sessions.admitted import Admitted
from wsthreads.sessions.dialogue import Dialogue
from wsthreads.sessions.handshake_results import Refusal
from wsthreads.sessions.interface import Handler
from wsthreads.sessions.life import Life
from wsthreads.sessions.moves import Handover
from wsthreads.sessions.probe_timer import ProbeTimer
from wsthreads.sessions.reception import Reception
from wsthreads.sessions.served import Served
from wsthreads.sessions.session import Channel, Session
from wsthreads.sessions.suspensions import Suspensions
from wsthreads.threads.flusher import Flusher
from wsthreads.threads.scheduling import ScheduledThread, Scheduling

__all__ = ["Service"]

#: At a shutdown: the time between two attempts to move a session to another process, and how long before the end the
#: attempts stop and the session is closed.
RETRY_S = 0.1
CLOSE_S = 1.0

log = get_logger(__name__)


class Service:
    """Serves connections. Has lists of the connections and of the sessions. Any thread."""

    def __init__(
        self,
        path: str,
        handler: Handler,
        *,
        config: Config,
        admission: Admission,
        flusher: Flusher,
        scheduling: Scheduling,
        metrics: Metrics,
        ledger: Ledger,
        rooms: Rooms[Any],
        session_class: type[Session],
        log_level: int,
    ) -> None:
        self.path = path
        self.handler = handler
        self._rooms = rooms
        self._session_class = session_class
        self.config = config
        self.admission = admission
        self.flusher = flusher
        self.scheduling = scheduling
        self._metrics = metrics
        self._ledger = ledger
        self._log_level = log_level
        self._round_trips = metrics.histogram("ping")
        self._warned: set[str] = set()
        #: The sessions by id, including those in `on_close`.
        self.served: StripedDict[str, Served] = StripedDict()
        #: The connections of clients without a session, by the id() of the connection.
        self.without_session: StripedDict[int, Connection] = StripedDict()
        self.left_behind: list[str] = []  # why sessions have not moved to another process at a shutdown
        #: Lets the handler measure how long calls wait in its queue.
        self.probe_timer = ProbeTimer(handler, self.served, flusher)
        #: The sessions that wait for their clients.
        self.suspensions = Suspensions(
            resume_s=config.resume_s,
            timers=flusher,
            flusher=flusher,
            admission=admission,
            served=self.served,
            over=self._forget_over,
        )
        #: Moves sessions to other processes. Set once, before the first client. None without a broker.
        self.handover: Handover | None = None
        self._reception = Reception(self)

    def serve(self, client: Admitted) -> None:
        """Serve a client to the end, and then free the client's place.

        Never raises, because the thread and the connection belong to the WSGI server.
        """
        request = client.request
        try:
            if client.verdict.refusal is None:
                self._serve(client)
            else:
                self._turn_away(client, client.verdict.refusal)
        except BaseException as error:  # a bug of wsthreads, or an exception that another thread has raised in this one
            context, ours = log_context(request.environ), exc_info_of(error)
            log.error("session %s on %s failed", client.session_id, self.path, exc_info=ours, extra=context)
            end_socket(request.environ)
        finally:
            self.admission.leave(client.network)

    def abandon(self, client: Admitted) -> None:
        """Free the place of a client that will not be served, and drop the client's data."""
        try:
            self.handler.abandon(client.session_id)
        finally:
            self.admission.leave(client.network)

    def _turn_away(self, client: Admitted, refusal: Refusal) -> None:
        """Send the 101 and then a close frame. A browser shows the close code to the page, but not an HTTP status.

        If a browser offers subprotocols, it gives up a connection that uses none of them. So the 101 names one.
        """
        request = client.request
        offered = request.subprotocols
        spoken = choose_subprotocol(offered, self.config.subprotocols) or next(iter(offered), None)
        if request.speaks_envelope:
            spoken = SUBPROTOCOL
        self.record_refusal(request, refusal.code, refusal.reason, "handler")
        try:
            connection = self._connect(request, spoken, None)
            try:
                self.without_session.put(id(connection), connection)
                _say_goodbye(connection, refusal.code, refusal.reason)
            finally:
                try:
                    _end(connection)
                finally:
                    self.without_session.pop(id(connection))
        except OSError as error:  # the client had left before the 101
            log.debug("a client was lost in its handshake: %s", error, extra=log_context(request.environ))

    def record_refusal(self, request: Request, code: int, reason: str, cause: str) -> None:
        """Count and log a client that gets a 101, but no session."""
        context, why = log_context(request.environ), f"{code} {printable(reason)}".strip()
        self._metrics.add("handshakes_refused_101")
        self._ledger.refuse(101, cause)
        text = "handshake on %s from %s refused: connection opened (101) and closed with %s"
        log.info(text, self.path, request.remote_addr, why, extra=context)

    def _serve(self, client: Admitted) -> None:
        """Serve a client that gets a session, or resumes one."""
        connection: Connection | None = None
        life: Life | None = None
        request, context = client.request, log_context(client.request.environ)
        is_ours = not request.speaks_envelope  # whether the session has only this connection
        try:
            spoken = client.verdict.subprotocol or choose_subprotocol(request.subprotocols, self.config.subprotocols)
            try:
                connection = self._connect(request, spoken if is_ours else SUBPROTOCOL, client.agreement)
            except OSError as error:  # the client had left before the 101
                log.debug("the client of session %s left in its handshake: %s", client.session_id, error, extra=context)
                is_ours = True
                return
            except BaseException:
                is_ours = True
                raise
            self._hint_at_protocol(request, spoken)
            if not is_ours:
                self.without_session.put(id(connection), connection)  # so that a shutdown can close the connection
                self._reception.serve(client, connection, spoken)
                return
            session, life = self.make_session(client.session_id, client.request, connection.channel)
            connection.before_end = partial(self._catch_up, session)
            if not self.enter(session, connection):
                life.close(*(connection.channel.ending or (CloseCode.ABNORMAL, "")))
                for _ in connection.messages():
                    pass
                _end(connection)
                return
            with in_context(context), self.scheduling.session_thread() as thread:
                self._hand_over(life, connection, thread)
        finally:
            with ExitStack() as steps:  # the steps run in reverse order; if one fails, the others still run
                if connection is not None and not is_ours:
                    steps.callback(self._disconnect, client.session_id, connection)
                if connection is not None:
                    steps.callback(self.without_session.pop, id(connection))
                if life is not None:  # does nothing if `_hand_over` was called
                    steps.callback(life.close, CloseCode.INTERNAL_ERROR, "")
                if connection is not None and connection.connected:  # after an error outside of `_hand_over`
                    steps.callback(_give_up, connection)
                if is_ours:
                    steps.callback(self._forget, client.session_id)

    def _catch_up(self, session: Session, code: int) -> None:
        """Wait until all messages of a client have been handled. Called when the client closes a plain connection."""
        self.handler.catch_up(session)

    def make_session(self, session_id: str, request: Request, channel: Channel) -> tuple[Session, Life]:
        """Make a session that is not open yet, and is in no room."""
        session = self._session_class(
            session_id,
            request,
            channel,
            self._rooms,
            wait_s=self.config.send_timeout_s,
            request_timeout_s=self.config.request_timeout_s,
        )
        life = Life(
            session,
            handler=self.handler,
            rooms=self._rooms,
            metrics=self._metrics,
            path=self.path,
            log_level=self._log_level,
            log_context=log_context(request.environ),
        )
        return session, life

    def enter(self, session: Session, connection: Connection, dialogue: Dialogue | None = None) -> bool:
        """Add a session to the endpoint's list, and to its user's sessions.

        Returns False if the user was banned in the meantime. The session is then closing, and must not be opened.
        """
        if session.user is not None:
            # until `enter` returns, a shutdown can close the connection
            self.without_session.put(id(connection), connection)
            ban = self._rooms.directory.enter(session)
            if ban is not None:
                self.record_refusal(session.request, ban.code, ban.reason, "banned")
                session._channel.begin_close(ban.code, ban.reason)
                return False
        self.served.put(session.id, Served(session, connection, dialogue))
        self.without_session.pop(id(connection))
        self._ledger.begin()
        self.probe_timer.session_begins()
        if session.request.expires_at is not None:
            session.set_expiry(session.request.expires_at)
        return True

    def count(self, name: str) -> None:
        """Add 1 to a counter."""
        self._metrics.add(name)

    def leave(self, dialogue: Dialogue) -> None:
        """Move a session without a connection to another process, or end it. For a shutdown. Blocks."""
        while self.handover is not None and not dialogue.is_over and dialogue.ending is None:
            if self.handover.export(dialogue.session.id) or monotonic() > self.admission.ends_at - CLOSE_S:
                break
            sleep(RETRY_S)  # a function of the handler takes long, or the broker is unavailable
        if not dialogue.is_over:
            if self.handover is not None and dialogue.ending is None:
                self.left_behind.append(dialogue.why_here)
            dialogue.begin_close(*(self.admission.goodbye or (CloseCode.ABNORMAL, "")))

    def has_session(self, connection: Connection) -> None:
        """Note that a session was resumed over this connection."""
        self.without_session.pop(id(connection))

    def disconnected(self, dialogue: Dialogue, connection: Connection) -> None:
        """Note that a connection of a session has ended."""
        self._disconnect(dialogue.session.id, connection)

    def _disconnect(self, session_id: str, connection: Connection) -> None:
        served = self.served.get(session_id)
        if served is not None and served.dialogue is not None:
            served.disconnect(connection)
            self._forget_over(served.dialogue)

    def _forget_over(self, dialogue: Dialogue) -> None:
        """Forget a session once it has ended, and its last connection has ended."""
        served = self.served.get(dialogue.session.id)
        if served is None or served.dialogue is not dialogue:  # the session has moved away and has come back
            return
        if dialogue.is_over and served.connection is None:
            self._forget(dialogue.session.id)

    def _forget(self, session_id: str) -> None:
        """Forget a session that has ended, or a client that has got no session."""
        served = self.served.get(session_id)
        if served is None:  # the client never had a session
            self.handler.abandon(session_id)
            return
        code, _ = served.session._channel.ending or (CloseCode.ABNORMAL, "")
        try:
            self._ledger.end(None if served.is_gone else int(code), served)
        finally:
            self.served.remove(session_id, served)

    def _hand_over(self, life: Life, connection: Connection, thread: ScheduledThread) -> None:
        """Open the session, pass its messages to the handler, and close the session with the connection."""
        goodbye = self.admission.goodbye
        if goodbye is not None:  # the shutdown began after the handshake, and has missed this session
            connection.channel.begin_close(*goodbye)
        handler, session = self.handler, life.session
        code, reason = int(CloseCode.INTERNAL_ERROR), ""
        try:
            life.open()
            reader = handler.reader(session, connection.readable_fd)
            if reader is not None:
                connection.read_by(reader)
                thread.only_reads()
            for message in connection.messages():
                if thread.is_displaced:
                    thread.runs_handler()
                handler.message(session, message)
        except BaseException:
            # An exception here is not an error in the user's code, because the handler logs such errors itself.
            connection.channel.begin_close(CloseCode.INTERNAL_ERROR, "server error")
            raise
        finally:
            try:
                code, reason = connection.finish()
            finally:
                try:
                    life.close(code, reason, is_lost=_may_come_back(code, connection))
                finally:
                    try:
                        connection.hang_up()
                    finally:
                        life.record_end(was_too_slow=connection.channel.was_too_slow)

    def _connect(self, request: Request, subprotocol: str | None, agreement: Agreement | None) -> Connection:
        """Send the 101. Raises OSError if the client has left."""
        with self.scheduling.opening():
            connection = Connection(
                request.environ,
                config=self.config,
                flusher=self.flusher,
                subprotocol=subprotocol,
                agreement=agreement,
                count=self._metrics.add,
                round_trips=self._round_trips,
            )
        try:
            log_upgrade(request.environ)
        except BaseException:
            _give_up(connection)
            raise
        return connection

    def _hint_at_protocol(self, request: Request, spoken: str | None) -> None:
        """Warn once of clients that want to speak another protocol."""
        if request.subprotocols and spoken is None:  # the log names no subprotocols, because they may be tokens
            self._warn_once(
                "a client of %s offers only subprotocols that the endpoint does not speak, so browsers give up the "
                "connection: see the setting subprotocols (--subprotocol), or return one from the handshake function",
                self.path,
            )
        if foreign := foreign_protocol(request.environ):
            self._warn_once("a client of %s speaks another protocol than this server: %s", self.path, foreign)

    def _warn_once(self, text: str, *values: object) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log.warning(text, *values, extra={"endpoint": self.path})


def _may_come_back(code: int, connection: Connection) -> bool:
    """Whether the client of an ended connection may soon come back, for example with a new token after an expiry."""
    channel = connection.channel
    return channel.has_expired or (code in LOST_CODES and not channel.was_kicked)


def _say_goodbye(connection: Connection, code: int, reason: str) -> None:
    """Close a connection. Returns when the client has answered, or after `close_timeout_s`."""
    connection.channel.begin_close(code, reason)
    for _ in connection.messages():
        pass


def _give_up(connection: Connection) -> None:
    """End a connection after an error, without a close handshake."""
    try:
        connection.channel.lose("server error")
    finally:
        _end(connection)


def _end(connection: Connection) -> None:
    try:
        connection.finish()
    finally:
        connection.hang_up()
