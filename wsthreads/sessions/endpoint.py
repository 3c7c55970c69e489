"""One path: its handler, its rooms, its sessions; runs each session from the handshake to the end.

The order of a session's life, all in the connection's thread: `accept` judges the handshake (anything that does not
pass is an HTTP answer), `_serve` sends the 101, opens, hands over messages, ends TCP, closes, and leaves the rooms.
"""

from __future__ import annotations

import logging
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.config import Config
from wsthreads.errors import CloseCode, HandshakeRefused, WSThreadsError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.failures import exc_info_of
from wsthreads.monitoring.logs import SESSION_KEY, in_context, log_context, printable
from wsthreads.monitoring.metrics import Ledger, Metrics, Totals
from wsthreads.protocol.connection import Connection
from wsthreads.protocol.deflate import Agreement, agree
from wsthreads.protocol.fitness import is_validated, unfitness
from wsthreads.protocol.handshake import Request, check_origin, check_upgrade, choose_subprotocol, strip_values
from wsthreads.protocol.hints import foreign_protocol
from wsthreads.protocol.hosts import SessionResponse, log_upgrade
from wsthreads.rooms.presence import PresenceChanges
from wsthreads.rooms.rooms import Room, Rooms
from wsthreads.rooms.roster import LOST_CODES
from wsthreads.rooms.striped import StripedDict
from wsthreads.sessions.admission import RETRY_AFTER_S, Admission
from wsthreads.sessions.handlers import Handler
from wsthreads.sessions.session import Session, new_session_id
from wsthreads.sessions.verdicts import Refusal, Verdict
from wsthreads.threads.flusher import Flusher
from wsthreads.threads.scheduling import ScheduledThread, Scheduling

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

__all__ = ["Endpoint"]

log = get_logger(__name__)

#: The end of a session whose client was too slow: a logger of its own, which the log under gunicorn has from info up.
slow_log = get_logger(f"{__name__}.slow")


VALIDATED = "wsgiref.validate holds an application to WSGI, which knows no WebSockets: WebSocketApp(validator(app))"

#: The counters of what a handler has done wrong.
HANDLER_ERRORS = ("handler_errors", "script_timeouts", "unhandled_rejections")


class Endpoint:
    """One path of an app. Any thread.

    The start and the end of each session are logged at `log_level`.
    """

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
        rooms: Rooms[Any],
        session_class: type[Session] = Session,
        log_level: int = logging.INFO,
    ) -> None:
        self.path = path
        self.handler = handler
        self.rooms = rooms
        self._session_class = session_class
        handler.use_rooms(self.rooms.room)
        handler.endpoint_path = path
        #: Who is there in the rooms.
        self.roster = rooms.use_roster(
            timers=flusher,
            report=self._report_presence,
            wants_reports=lambda: "on_presence" in handler.hooks,
            count=metrics.add,
            interval_s=config.presence_interval_s,
            grace_s=config.presence_grace_s,
            max_value_bytes=config.max_presence_bytes,
        )
        self._log_level = log_level
        self._config = config
        self._warned: set[str] = set()
        self._admission = admission
        self._flusher = flusher
        self._scheduling = scheduling
        self._metrics = metrics
        self._round_trips = metrics.histogram("ping")
        self._ledger = Ledger()
        self._connections: StripedDict[Session, Connection] = StripedDict()
        self._turned_away: StripedDict[int, Connection] = StripedDict()  # by its id()

    def room(self, name: str) -> Room:
        """A handle on a room, to broadcast without a session. Raises `RoomNameError`."""
        return self.rooms.room(name)

    def sessions(self) -> list[Session]:
        """The sessions in this process, also those in `on_close`. A snapshot."""
        return list(self._connections.snapshot())

    def session_count(self) -> int:
        """The number of sessions in this process."""
        return len(self._connections)

    def live(self) -> dict[Session, Connection]:
        """The sessions that there are, with their connections. A snapshot."""
        return self._connections.snapshot()

    def totals(self) -> Totals:
        """Counters of this endpoint, now and since the process began. Takes some microseconds for each session."""
        counts, times = self._metrics.snapshot(), self._metrics.distributions()
        return self._ledger.sum(
            lambda: (connection.traffic() for connection in self._connections.snapshot().values()),
            self.rooms.totals,
            errors=sum(counts.get(name, 0) for name in HANDLER_ERRORS),
            counters=counts,
            round_trips=times.pop("ping", None),
            handler_seconds=times,
        )

    def count_refusal(self, refusal: HandshakeRefused) -> None:
        """A handshake for this path was refused."""
        self._metrics.add(f"handshakes_refused_{refusal.status}")
        self._ledger.refuse(refusal.status, refusal.cause)

    def accept(self, environ: dict[str, Any], start_response: StartResponse) -> SessionResponse:
        """Judge a request for this path. Raises `HandshakeRefused` for anything but a good handshake.

        A place is taken from here on; the response gives it back when it is over, or closed before it began.
        """
        if unfit := unfitness(environ):
            raise HandshakeRefused(501, unfit, cause="server")
        strip_values(environ)
        check_upgrade(environ)
        if is_validated(environ):
            raise HandshakeRefused(501, VALIDATED, cause="server")
        self._scheduling.handshake_begins()
        request = Request(environ)
        check_origin(request, self._config.allowed_origins)
        agreement = agree(request.get_header("Sec-WebSocket-Extensions")) if self._config.compression else None
        session_id = new_session_id()
        network = self._admission.enter(request.remote_addr)
        try:
            self._start_flusher()
            self._scheduling.session_begins(self._flusher, self._admission)
            self._start_handler()
            with in_context(log_context(environ)):
                verdict = self.handler.handshake(request, session_id)
        except BaseException:
            self._admission.leave(network)
            raise
        if verdict.refusal is None:
            environ[SESSION_KEY] = session_id
        serve = partial(self._serve_contained, request, session_id, verdict, agreement, network)
        abandon = partial(self._abandon, session_id, network)
        return SessionResponse(serve, abandon, start_response, environ)

    def _start_flusher(self) -> None:
        try:
            self._flusher.start()
        except (OSError, RuntimeError) as error:  # no descriptor, or no thread, is to be had just now
            log.error("the housekeeping thread cannot be started: %s", error)
            retry = [("Retry-After", str(RETRY_AFTER_S))]
            raise HandshakeRefused(503, "out of resources", retry, cause="resources") from error

    def _start_handler(self) -> None:
        """Where a script's isolate has died, or this is a forked process, that loads the script again."""
        try:
            self.handler.start()
        except WSThreadsError as error:
            log.error("the handler of %s cannot be started: %s", self.path, error, extra={"endpoint": self.path})
            retry = [("Retry-After", str(RETRY_AFTER_S))]
            raise HandshakeRefused(503, "the handler is not running", retry, cause="handler_down") from error

    def connections(self) -> list[Connection]:
        """The connections of its sessions, and of clients that are being turned away. A snapshot."""
        return [*self._connections.snapshot().values(), *self._turned_away.snapshot().values()]

    def cut_off(self) -> int:
        """End every connection at once; how many there were."""
        connections = self.connections()
        for connection in connections:
            connection.channel.lose("cut off at shutdown")
        return len(connections)

    def _report_presence(self, name: str, changes: PresenceChanges) -> str | bytes | None:
        """Call `on_presence`. In a thread of the roster's."""
        with in_context({"endpoint": self.path, "address": ""}):
            return self.handler.presence(self.rooms.room(name), changes)

    def _abandon(self, session_id: str, network: str) -> None:
        self.handler.abandon(session_id)
        self._admission.leave(network)

    def _serve_contained(
        self, request: Request, session_id: str, verdict: Verdict, agreement: Agreement | None, network: str
    ) -> None:
        """`_serve`, whose errors end here: the thread is the WSGI server's, and so is the end of the connection."""
        try:
            if verdict.refusal is None:
                self._serve(request, session_id, verdict, agreement, network)
            else:
                self._turn_away(request, verdict.refusal, network)
        except BaseException as error:  # ours, or another thread's, by PyThreadState_SetAsyncExc
            context, ours = log_context(request.environ), exc_info_of(error)
            log.error("session %s on %s failed", session_id, self.path, exc_info=ours, extra=context)

    def _turn_away(self, request: Request, refusal: Refusal, network: str) -> None:
        """Send the 101, and with it the close frame: browsers tell their page of that, and of no HTTP status.

        They give up a connection that speaks none of the subprotocols that they offer, so one of these is spoken.
        """
        context = log_context(request.environ)
        offered = request.subprotocols
        spoken = choose_subprotocol(offered, self._config.subprotocols) or next(iter(offered), None)
        why = f"{refusal.code} {printable(refusal.reason)}".strip()
        self._metrics.add("handshakes_refused_101")
        self._ledger.refuse(101, "handler")
        log.info("handshake on %s from %s refused with a 101: %s", self.path, request.remote_addr, why, extra=context)
        try:
            connection = self._connect(request, spoken, None)
            self._turned_away.put(id(connection), connection)
            try:
                connection.channel.begin_close(refusal.code, refusal.reason)
                for _ in connection.messages():  # until the client has answered, or `close_timeout_s` is over
                    pass
            finally:
                connection.finish()
                connection.hang_up()
                self._turned_away.pop(id(connection))
        except OSError as error:  # the client was gone before the 101
            log.debug("a client was lost in its handshake: %s", error, extra=context)
        finally:
            self._admission.leave(network)

    def _serve(
        self, request: Request, session_id: str, verdict: Verdict, agreement: Agreement | None, network: str
    ) -> None:
        """A session's whole life. Its place is `network`'s."""
        opened = False
        connection: Connection | None = None
        context = log_context(request.environ)
        try:
            try:
                spoken = verdict.subprotocol or choose_subprotocol(request.subprotocols, self._config.subprotocols)
                connection = self._connect(request, spoken, agreement)
            except OSError as error:  # the client was gone before the 101
                log.debug("session %s lost in its handshake: %s", session_id, error, extra=context)
                return
            wait_s = self._config.send_timeout_s
            session = self._session_class(session_id, request, connection.channel, self.rooms, wait_s=wait_s)
            connection.before_end = partial(self.handler.catch_up, session)
            self._connections.put(session, connection)
            opened = True
            self._ledger.begin()
            self._hint_at_protocol(request, connection.subprotocol)
            with in_context(context), self._scheduling.session_thread() as thread:
                self._run(session, connection, thread, context)
        finally:
            try:
                if opened and connection is not None:
                    self._connections.pop(session)
                    code, _ = connection.channel.ending or (CloseCode.ABNORMAL, "")
                    self._ledger.end(int(code), connection.traffic())
                else:
                    self.handler.abandon(session_id)
                if connection is not None and connection.connected:  # something of ours failed outside of `_run`
                    _give_up(connection)
            finally:
                self._admission.leave(network)

    def _hint_at_protocol(self, request: Request, spoken: str | None) -> None:
        """Say once what becomes of clients that want to speak something else."""
        if request.subprotocols and spoken is None:  # which may be tokens: the log does not name them
            self._warn_once(
                "a client of %s offers subprotocols, of which none is spoken, so that browsers give up the connection: "
                "see the setting subprotocols (--subprotocol), or return one from the handshake function",
                self.path,
            )
        if foreign := foreign_protocol(request.environ):
            self._warn_once("a client of %s will hear nothing that it understands: %s", self.path, foreign)

    def _warn_once(self, text: str, *values: object) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log.warning(text, *values, extra={"endpoint": self.path})

    def _connect(self, request: Request, subprotocol: str | None, agreement: Agreement | None) -> Connection:
        connection = Connection(
            request.environ,
            config=self._config,
            flusher=self._flusher,
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

    def _run(self, session: Session, connection: Connection, thread: ScheduledThread, context: dict[str, str]) -> None:
        """From `on_open` to `on_close`. Nothing that a handler does can get a later step left out."""
        began = monotonic()
        self._metrics.add("sessions_opened")
        opened = "session %s opened on %s from %s"
        log.log(self._log_level, opened, session.id, self.path, session.remote_addr, extra=context)
        goodbye = self._admission.goodbye
        if goodbye is not None:  # shutdown began between the handshake and here, and did not see this session
            connection.channel.begin_close(*goodbye)
        handler = self.handler
        code, reason = int(CloseCode.INTERNAL_ERROR), ""
        try:
            handler.open(session)
            reader = handler.reader(session, connection.readable_fd)
            if reader is not None:
                connection.read_by(reader)
                thread.only_reads()
            for message in connection.messages():
                if thread.is_displaced:
                    thread.runs_handler()
                handler.message(session, message)
        except BaseException:
            # Not the handler's errors, which it keeps to itself.
            connection.channel.begin_close(CloseCode.INTERNAL_ERROR, "server error")
            raise
        finally:
            try:
                code, reason = connection.finish()
            finally:
                try:
                    handler.close(session, code, reason)
                finally:
                    try:
                        is_lost = code in LOST_CODES and not connection.channel.was_kicked
                        self.rooms.leave_all(session, is_lost=is_lost)
                    finally:
                        connection.hang_up()
                    self._metrics.add("sessions_closed")
                    (slow_log if connection.channel.was_too_slow else log).log(
                        self._log_level, "session %s closed on %s after %.1f s: %s",
                        session.id, self.path, monotonic() - began, f"{code} {printable(reason)}".strip(),
                        extra=context,
                    )


def _give_up(connection: Connection) -> None:
    """End a connection for which nothing else will be done."""
    connection.channel.lose("server error")
    connection.finish()
    connection.hang_up()
