"""One path with its handler, its rooms and its sessions.

An endpoint checks handshakes. `Service` serves the clients that are accepted. Any other request gets an HTTP response.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any
from weakref import ref

from wsthreads.config import Config
from wsthreads.errors import HandshakeRefused, WSThreadsError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import SESSION_KEY, in_context, log_context
from wsthreads.monitoring.metrics import Ledger, Metrics, Totals
from wsthreads.protocol.connection import Connection
from wsthreads.protocol.deflate import Agreement, agree
from wsthreads.protocol.handshake import Request, check_origin, check_upgrade, strip_values
from wsthreads.protocol.server_support import is_validated, unfitness
from wsthreads.protocol.wsgi_servers import SessionResponse
from wsthreads.rooms.handles import Peer, Room, User
from wsthreads.rooms.mailboxes import RoomCall
from wsthreads.rooms.presence import PresenceChanges
from wsthreads.rooms.rooms import Rooms
from wsthreads.rooms.striped import StripedDict
from wsthreads.sessions.admission import RETRY_AFTER_S, Admission
from wsthreads.sessions.admitted import Admitted
from wsthreads.sessions.hooks import ROOM_HOOKS
from wsthreads.sessions.interface import Handler
from wsthreads.sessions.moves import Handover, Moves
from wsthreads.sessions.served import Served
from wsthreads.sessions.service import Service
from wsthreads.sessions.session import Session, new_session_id
from wsthreads.threads import forks
from wsthreads.threads.flusher import Flusher
from wsthreads.threads.scheduling import Scheduling

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

__all__ = ["Endpoint"]

log = get_logger(__name__)

VALIDATED = "wsgiref.validate rejects WebSockets, which WSGI does not have: use WebSocketApp(validator(app))"

#: A process describes at most this many sessions to other processes.
MAX_DESCRIBED = 1000

#: The counters of errors in the code of a handler.
HANDLER_ERRORS = ("handler_errors", "script_timeouts", "unhandled_rejections")


class Endpoint:
    """The endpoint for one `path` of an app. The path may be a rule with parameters. Any thread.

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
        handler.use_rooms(rooms)
        handler.endpoint_path = path
        #: The presence in the rooms.
        self.roster = rooms.use_roster(
            timers=flusher,
            report=partial(_report_presence, ref(self)),
            wants_reports=partial(_wants_presence, ref(self)),
            count=metrics.add,
            interval_s=config.presence_interval_s,
            grace_s=config.presence_grace_s,
            max_value_bytes=config.max_presence_bytes,
        )
        #: Decides which rooms this process owns.
        self.ownership = rooms.use_ownership(
            timers=flusher,
            run=partial(_call_rooms, ref(self)),
            hooks=partial(_room_hooks, ref(self)),
            tick_rate=partial(_tick_rate, ref(self)),
            count=metrics.add,
            tick_lag=metrics.histogram("tick_lag"),
            threads=config.room_threads if handler.room_batch == 1 else 1,
            batch=handler.room_batch,
            max_post_bytes=config.max_post_bytes,
            post_timeout_s=config.post_timeout_s,
        )
        handler.on_loaded = self.ownership.refresh
        self.ownership.refresh()
        #: The attributes of the rooms.
        self.attributes = rooms.use_attributes(
            timers=flusher, max_bytes=config.max_room_bytes, keep_s=config.room_keep_s
        )
        self._config = config
        self._admission = admission
        self._flusher = flusher
        self._scheduling = scheduling
        self._metrics = metrics
        self._ledger = Ledger()
        forks.owners.add(self)
        self._service = Service(
            path,
            handler,
            config=config,
            admission=admission,
            flusher=flusher,
            scheduling=scheduling,
            metrics=metrics,
            ledger=self._ledger,
            rooms=rooms,
            session_class=session_class,
            log_level=log_level,
        )
        #: The sessions that wait for their clients.
        self.suspensions = self._service.suspensions
        #: Moves sessions to other processes, and from them to this one.
        self.moves = Moves(self._service)
        #: Reaches users and single sessions. Has no reference to the endpoint, because it may exist for longer, like
        #: the rooms.
        self.directory = rooms.use_directory(
            path=path,
            count=metrics.add,
            find=partial(_session_of, self._service.served),
            describe=partial(_describe, self._service.served),
        )
        rooms.owner = ref(self)

    def use_handover(self, handover: Handover) -> None:
        """Use this `Handover` to move sessions to other processes. Called once, before the first client."""
        self._service.handover = handover
        self.suspensions.hands_over = True

    @property
    def handover(self) -> Handover | None:
        """Moves sessions to other processes. None without a broker."""
        return self._service.handover

    def look_for_overdue(self) -> None:
        """From now on, end sessions of ended processes whose clients do not come back. Idempotent."""
        handover = self._service.handover
        if handover is not None:
            handover.start()

    def say_goodbye(self, code: int, reason: str) -> None:
        """Move suspended sessions to other processes, or end them. For a shutdown. Does not block."""
        handover, leave = self._service.handover, self._service.leave
        if handover is None:
            self.suspensions.close_all(code, reason)
        else:
            handover.take_no_more()
            handover.put(partial(leave, dialogue) for dialogue in self.suspensions.waiting())

    def give_up_connections(self, dead_fd: int) -> None:
        """Forget sessions and connections in a forked process (see `forks.Owner`): they are those of the parent."""
        served, without = self._service.served.renew().values(), self._service.without_session.renew().values()
        self._service.probe_timer.renew()
        self.suspensions.give_up()
        if self._service.handover is not None:
            self._service.handover.give_up()
        for connection in [*(one.connection for one in served), *without]:
            if connection is not None:
                connection.channel.give_up(dead_fd)
        for one in served:
            one.session._give_up()
            if one.dialogue is not None:
                one.dialogue.give_up()
        self.rooms.give_up(has_members=bool(served))

    def room(self, name: str) -> Room:
        """A handle on a room, for broadcasts without a session. Raises `RoomNameError`."""
        return self.rooms.room(name)

    def user(self, name: str) -> User:
        """A handle on all sessions of a user. Over Redis, the sessions may be in any process. Raises `UserError`."""
        return User(name, self.directory)

    def session(self, session_id: str) -> Peer:
        """A handle on one session. Over Redis, it may be in any process. Raises `UsageError` for an invalid id."""
        return Peer(session_id, self.directory)

    def sessions(self) -> list[Session]:
        """The sessions in this process, including suspended sessions and those in `on_close`. A snapshot."""
        return [served.session for served in self._service.served.snapshot().values()]

    def sessions_everywhere(self, timeout_s: float = 1.0) -> list[dict[str, Any]]:
        """The sessions in all processes, at most `MAX_DESCRIBED` of each. Over Redis, waits at most `timeout_s`.

        Each entry is a dict: ``id``, ``user``, ``since``, ``address``, ``rooms``, and the ``pid`` and ``host`` of the
        session's process. A session that waits for its client after a restart is in no process, and so not in the list.
        """
        return self.directory.sessions_everywhere(timeout_s)

    def user_count(self) -> int:
        """The number of users with sessions in this process."""
        return len(self.rooms.users())

    def session_count(self) -> int:
        """The number of sessions in this process. Includes those that wait for their clients."""
        return len(self._service.served)

    def live(self) -> dict[Session, Connection]:
        """The sessions that have connections, each with its connection. A snapshot."""
        every = ((served.session, served.connection) for served in self._service.served.snapshot().values())
        return {session: connection for session, connection in every if connection is not None}

    def served(self) -> dict[Session, Served]:
        """All sessions, including suspended ones. Each has its connection and its dialogue. A snapshot."""
        return {served.session: served for served in self._service.served.snapshot().values()}

    def totals(self) -> Totals:
        """The counters of this endpoint since the process began. Takes some microseconds for each session."""
        counts, times = self._metrics.snapshot(), self._metrics.distributions()
        owned, history = self.ownership.states().values(), self.rooms.history
        history_messages, history_bytes = (None, None) if history is None else history.totals()
        wait_p50_s, wait_max_s = self.handler.recent_waits() or (None, None)
        return self._ledger.sum(
            self._service.served.snapshot().values(),
            self.rooms.totals,
            users=self.user_count(),
            suspended=len(self.suspensions),
            errors=sum(counts.get(name, 0) for name in HANDLER_ERRORS),
            counters=counts,
            round_trips=times.pop("ping", None),
            owned_rooms=len(owned),
            posts_waiting=sum(state.posts_waiting for state in owned),
            tick_lags=times.pop("tick_lag", None),
            script_waits=times.pop("script_wait", None),
            script_wait_p50_s=wait_p50_s,
            script_wait_max_s=wait_max_s,
            history_messages=history_messages,
            history_bytes=history_bytes,
            handler_seconds=times,
        )

    def count_refusal(self, refusal: HandshakeRefused) -> None:
        """Count a refused handshake for this path."""
        self._metrics.add(f"handshakes_refused_{refusal.status}")
        self._ledger.refuse(refusal.status, refusal.cause)

    def accept(
        self, environ: dict[str, Any], start_response: StartResponse, path_parameters: Mapping[str, Any]
    ) -> SessionResponse:
        """Check a request for this path. Raises `HandshakeRefused` for anything but a valid handshake.

        The request takes a place. The response returns it at its end, or when it is closed before its start.
        """
        with self._scheduling.opening():
            request, agreement = self._judge(environ, path_parameters)
            # the client's hello will tell whether it comes back
            may_come_back = self._config.resume_s > 0 and request.speaks_envelope
            network, is_beyond = self._admission.admit(request.remote_addr, may_come_back=may_come_back)
        session_id = new_session_id()
        try:
            self._start_flusher()
            self.look_for_overdue()
            self._scheduling.session_begins(self._flusher, self._admission)
            self._start_handler()
            with in_context(log_context(environ)):
                verdict = self.handler.handshake(request, session_id)
            if verdict.refusal is None:
                self._refuse_banned(request.user, session_id)
                self._refuse_expired(request.expires_at, session_id)
                environ[SESSION_KEY] = session_id
            client = Admitted(request, session_id, verdict, agreement, network, is_beyond)
            serve, abandon = partial(self._service.serve, client), partial(self._service.abandon, client)
            return SessionResponse(serve, abandon, start_response, environ)
        except BaseException:
            self._admission.leave(network)
            raise

    def _judge(
        self, environ: dict[str, Any], path_parameters: Mapping[str, Any]
    ) -> tuple[Request, Agreement | None]:
        """Check whether a request is a handshake that this endpoint accepts."""
        if unfit := unfitness(environ):
            raise HandshakeRefused(501, unfit, cause="server")
        strip_values(environ)
        check_upgrade(environ)
        if is_validated(environ):
            raise HandshakeRefused(501, VALIDATED, cause="server")
        request = Request(environ, path_parameters)
        check_origin(request, self._config.allowed_origins)
        agreement = agree(request.get_header("Sec-WebSocket-Extensions")) if self._config.compression else None
        return request, agreement

    def _refuse_banned(self, user: str | None, session_id: str) -> None:
        if user is not None and self.directory.ban_of(user) is not None:
            self.handler.abandon(session_id)
            raise HandshakeRefused(403, "banned", cause="banned")

    def _refuse_expired(self, expires_at: float | None, session_id: str) -> None:
        if expires_at is not None and (late_s := time() - expires_at) >= 0:
            self.handler.abandon(session_id)
            raise HandshakeRefused(401, f"expired {late_s:.0f} s ago", cause="expired")

    def _start_flusher(self) -> None:
        try:
            self._flusher.start()
        except (OSError, RuntimeError) as error:  # no descriptor or thread is left
            log.error("the housekeeping thread cannot be started, so a handshake is refused: %s", error)
            retry = [("Retry-After", str(RETRY_AFTER_S))]
            raise HandshakeRefused(503, "out of resources", retry, cause="resources") from error

    def _start_handler(self) -> None:
        """Start the handler. A script is loaded again after the death of its isolate, or in a forked process."""
        try:
            self.handler.start()
        except WSThreadsError as error:
            log.error("the handler of %s cannot be started: %s", self.path, error, extra={"endpoint": self.path})
            retry = [("Retry-After", str(RETRY_AFTER_S))]
            raise HandshakeRefused(503, "the handler is not running", retry, cause="handler_down") from error

    def connections(self) -> list[Connection]:
        """The connections of the sessions, and those of clients without a session. A snapshot."""
        without = self._service.without_session.snapshot()
        with_session = {id(connection): connection for connection in self.live().values()}
        return [*{**without, **with_session}.values()]  # for a short time, a connection may be in both

    def cut_off(self) -> int:
        """End every connection at once. Returns how many there were."""
        connections = self.connections()
        for connection in connections:
            connection.channel.lose("cut off at shutdown")
        return len(connections)


# The thread of a script has references to the rooms. The thread ends when the endpoint and the handler are
# garbage-collected. So the rooms must not have a reference to the endpoint or the handler.


def _session_of(served: StripedDict[str, Served], session_id: str) -> Session | None:
    found = served.get(session_id)
    return None if found is None else found.session


def _describe(served: StripedDict[str, Served]) -> list[dict[str, Any]]:
    """The entries of this process's sessions for `Endpoint.sessions_everywhere`."""
    return [
        {
            "id": session.id,
            "user": session.user,
            "since": session.opened_at,
            "address": session.remote_addr,
            "rooms": session.rooms(),
        }
        for session in [one.session for one in served.snapshot().values()][:MAX_DESCRIBED]
    ]


def _wants_presence(reference: ref[Endpoint]) -> bool:
    endpoint = reference()
    return endpoint is not None and "on_presence" in endpoint.handler.hooks


def _report_presence(reference: ref[Endpoint], name: str, changes: PresenceChanges) -> str | bytes | None:
    """Call `on_presence`. Runs in a thread of the `Roster`."""
    endpoint = reference()
    if endpoint is None:
        return None
    with in_context({"endpoint": endpoint.path, "address": ""}):
        return endpoint.handler.presence(endpoint.rooms.room(name), changes)


def _room_hooks(reference: ref[Endpoint]) -> frozenset[str]:
    endpoint = reference()
    return frozenset() if endpoint is None else endpoint.handler.hooks & ROOM_HOOKS


def _tick_rate(reference: ref[Endpoint]) -> float | None:
    endpoint = reference()
    return None if endpoint is None else endpoint.handler.tick_rate


def _call_rooms(reference: ref[Endpoint], calls: Sequence[RoomCall]) -> None:
    """Call the handler's functions for rooms. Runs in a thread of the `Ownership`."""
    endpoint = reference()
    if endpoint is None:
        for call in calls:
            call.done("down")
    else:
        with in_context({"endpoint": endpoint.path, "address": ""}):
            endpoint.handler.call_rooms(calls)
