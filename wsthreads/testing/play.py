"""`play` runs a handler in the real server code, with clients in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wsthreads.app import WebSocketApp
from wsthreads.app.rules import example_of, is_rule
from wsthreads.cli.targets import create_app
from wsthreads.errors import UsageError, brief
from wsthreads.javascript import ScriptHandler
from wsthreads.protocol.envelope import SUBPROTOCOL
from wsthreads.rooms.bans import Bans
from wsthreads.rooms.handles import Room, User
from wsthreads.rooms.rooms import Rooms
from wsthreads.sessions.endpoint import Endpoint
from wsthreads.sessions.hooks import HOOKS
from wsthreads.testing.client import Client
from wsthreads.testing.line import Call
from wsthreads.testing.timers import ManualTimers
from wsthreads.threads.flusher import Timers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["HandlerFailed", "Play", "app_for", "entry_of", "play"]

#: The path of a handler that is an object, not a file.
OBJECT_PATH = "/ws/test"

#: How long the end of the sessions, and of a script's interpreter, may take.
END_TIMEOUT_S = 2.0


class HandlerFailed(Exception):
    """A script has thrown an error or exceeded its deadline. The text contains the stack.

    Exceptions of a Python handler are raised in the test unchanged. Only a KeyboardInterrupt becomes the cause of a
    `HandlerFailed`, because it would otherwise end the whole test run.
    """


def play(
    target: object,
    path: str | None = None,
    *,
    through: WSGIApplication | None = None,
    raise_errors: bool = True,
    deadline_s: float = 5.0,
    **settings: Any,
) -> Play:
    """Run a handler for tests. The result is a context manager.

    `target` is a handler file (``"chat.js"``), a handler object (a class, an instance, a module), or a `WebSocketApp`.
    `path` is the endpoint that clients connect to. Leave it out if there is only one endpoint. `settings` are the
    settings of `Config`. `through` is a WSGI application around the `WebSocketApp`, such as one with a login. Clients
    connect through it. Rooms are local to this process, because WSTHREADS_REDIS is ignored, except by a `WebSocketApp`
    that you pass. If a handler raises an exception, the call that has caused it raises the exception in the test,
    unless `raise_errors` is False. No wait is longer than `deadline_s`. Raises the errors of `create_app`.
    """
    return Play(target, path, through=through, raise_errors=raise_errors, deadline_s=deadline_s, settings=settings)


def app_for(target: object, path: str | None, settings: Mapping[str, Any]) -> tuple[WebSocketApp, str | None]:
    """Returns the app that serves a target of `play`, and the path of its endpoint if there is only one."""
    if isinstance(target, WebSocketApp):
        if settings:
            raise UsageError(f"{', '.join(settings)} cannot be set here: the app has its settings already")
        return target, path or (target.endpoints[0].path if len(target.endpoints) == 1 else None)
    if _is_wsgi_application(target):
        name = getattr(target, "__name__", None) or repr(target)[:100]
        raise UsageError(
            f"{name} is a WSGI application or another function, not a handler: pass the WebSocketApp inside it, "
            "and the application as through=, as in play(sockets, through=app)"
        )
    if "broker" not in settings:
        settings = {"redis": False, **settings}  # tests must not use the rooms of a running server
    if isinstance(target, (str, os.PathLike)):
        app = create_app(target, path=path, **settings)
    else:
        app = WebSocketApp(**settings)
        app.add_handler(path or OBJECT_PATH, target)
    return app, path or (app.endpoints[0].path if len(app.endpoints) == 1 else None)


def entry_of(app: WebSocketApp, through: WSGIApplication | None) -> WSGIApplication:
    """Returns the application that clients connect to: `through`, or the app if there is no `through`.

    Raises `UsageError` if `through` is not callable.
    """
    if through is None:
        return app
    if not callable(through):
        raise UsageError(f"through must be a WSGI application around the WebSocketApp, not {through!r:.100}")
    return through


def _is_wsgi_application(target: object) -> bool:
    """Whether a target can be called and has no handler function, like Flask apps and WSGI functions."""
    return callable(target) and not isinstance(target, type) and not any(hasattr(target, hook) for hook in HOOKS)


def _use_timers(endpoint: Endpoint, timers: Timers) -> None:
    """Let all parts of an endpoint use another clock."""
    endpoint.roster.timers = endpoint.attributes.timers = endpoint.suspensions.timers = timers
    endpoint.ownership.use_timers(timers)
    if endpoint.rooms.history is not None:
        endpoint.rooms.history.timers = timers


class _SettledRoom(Room):
    """A handle for a room. Its `post` also waits for all effects, and raises the exception of `on_post`."""

    __slots__ = ("_deadline_s", "_settle")

    def __init__(self, name: str, rooms: Rooms[Any], settle: Callable[[], None], deadline_s: float) -> None:
        super().__init__(name, rooms)
        self._settle, self._deadline_s = settle, deadline_s

    def post(self, value: Any, *, wait: bool = True) -> None:
        self._rooms.ownership.post_value(self._name, value, None, wait=wait, timeout_s=self._deadline_s)
        self._settle()


class Play:
    """A running handler and its clients, which `play` returns. Use it as a context manager, in one thread at a time."""

    def __init__(
        self,
        target: object,
        path: str | None,
        *,
        through: WSGIApplication | None,
        raise_errors: bool,
        deadline_s: float,
        settings: Mapping[str, Any],
    ) -> None:
        self.app, self._path = app_for(target, path, settings)
        self._entry: WSGIApplication = entry_of(self.app, through)
        self._is_ours = self.app is not target
        self._raise_errors = raise_errors
        self._deadline_s = deadline_s
        self._clients: list[Client] = []  # clients whose threads run, or that may come back
        self._ends: list[Callable[[], None]] = []  # `Client.end` of all clients
        self._has_ended = False
        self._raised = 0  # how many of `errors` were raised in the test
        #: All errors of the handler so far: the exceptions of a Python handler, or a `HandlerFailed` for each error of
        #: a script.
        self.errors: list[BaseException] = []
        self._timers = ManualTimers()
        self._bans: dict[str, Bans] = {}  # the app's own bans, which are replaced during the test; by path
        for endpoint in self.app.endpoints:
            endpoint.handler.on_failure = self._failed
            _use_timers(endpoint, self._timers)
            self._bans[endpoint.path], endpoint.directory.bans = endpoint.directory.bans, Bans(self._timers.now)

    def connect(
        self,
        query: Mapping[str, str] | str = "",
        /,
        *,
        path: str | None = None,
        headers: Mapping[str, str] | None = None,
        subprotocols: Iterable[str] = (),
        remote_addr: str = "127.0.0.1",
        plain: bool = False,
        on_request: Callable[[str | bytes], str | bytes | None] | None = None,
        **parameters: str,
    ) -> Client:
        """Connect a client. Query parameters are given by name, as in ``chat.connect(user="ann")``, or as `query`.

        `path` is the path to connect to. It may also be the first argument: ``chat.connect("/ws/rooms/lobby",
        user="ann")``. An endpoint for paths with parameters needs a `path`. Without `path`, the client connects to the
        endpoint of `play`.

        The client speaks ``wsthreads.1``, like `wsthreads.js`, unless `plain` is True. Pass `on_request` here if the
        handler sends a request in `on_open`.

        When this method returns, `on_open` has returned. Raises `HandshakeRefused` if the client is refused with a
        status. A client that is refused with a close code (`Refusal`) is `closed`, and has no `session`.
        """
        if self._has_ended:  # nothing would end the client, or raise the handler's exceptions
            raise UsageError("this play has ended: connect clients inside its with statement")
        if isinstance(query, str) and query.startswith("/"):
            if path is not None:
                raise UsageError(f"give one path, not two: {query!r:.80} and path={path!r:.80}")
            path, _, query = query.partition("?")
        if query and parameters:
            raise UsageError(f"give either a query or single parameters, not both: {', '.join(parameters)}")
        path = self._path_for(path)
        # The app itself looks for the endpoint. If there is none for the path, the app refuses with a 404.
        client = Client(
            self.settle,
            self._deadline_s,
            sessions=lambda: self._endpoint(path).sessions(),
            failed=self._failed,
            on_request=on_request,
        )
        offered = (*(() if plain else (SUBPROTOCOL,)), *subprotocols)
        client.begin(Call(self._entry, path, query or parameters, headers or {}, offered, remote_addr))
        self._clients.append(client)
        self._ends.append(client.end)
        try:
            client.finish_handshake()
        except BaseException:
            self._raise_failure()
            raise
        client.wait_idle(monotonic() + self._deadline_s)
        client.meet()
        self.settle()
        return client

    @property
    def clients(self) -> list[Client]:
        """The clients that are open."""
        return [client for client in self._clients if client.is_open]

    def room(self, name: str, *, path: str | None = None) -> Room:
        """Returns a handle for a room, which needs no session: `broadcast`, `post`, `members`, `close`.

        When the method `post` of the handle returns, all effects of the post have happened. If `on_post` has raised an
        exception, `post` raises it.
        """
        endpoint = self._endpoint(path)
        return _SettledRoom(endpoint.room(name).name, endpoint.rooms, self.settle, self._deadline_s)

    def user(self, name: str, *, path: str | None = None) -> User:
        """Returns a handle for a user: `send`, `close`, `is_online`, `sessions`.

        The effects of the handle's methods have reached the clients when the next method of a client, or `settle`,
        returns.
        """
        return self._endpoint(path).user(name)

    def advance(self, seconds: float) -> None:
        """Move the clock of presence, bans, expiry, attributes and lost connections. Then wait for all effects.

        Only this method moves this clock. `on_presence` is called when the clock has moved by `presence_interval_s`. A
        person whose connection was lost leaves the room after `presence_grace_s`, and a ban ends after `ban_s`. A
        session that expires in a minute is closed when the clock has moved by 60. A session whose connection was lost
        ends after `resume_s`. The attributes of a room are removed `room_keep_s` after the last member has left.
        `on_tick` is called `tick_rate` times for each second.

        Other timers, and the clocks of Python and JavaScript, do not change. So the timeout of a request is in real
        seconds, in both languages. Choose a short timeout, as in ``play(…, request_timeout_s=0.1)``.
        """
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not is_number or not 0 <= seconds < math.inf:  # NaN fails, too
            raise UsageError(f"advance takes a number of seconds from 0 on, not {brief(seconds)}")
        self._timers.advance(seconds, between=self._wait)
        self.settle()

    def reload(self, *, path: str | None = None) -> None:
        """Load a script again, like ``wsthreads run --reload`` when the script's files have changed.

        When this method returns, the script's `onReload` has returned. Sessions stay. If the new version does not load,
        this method raises the errors of `play`, and the old version stays in use.
        """
        handler = self._endpoint(path).handler
        if not isinstance(handler, ScriptHandler):
            raise UsageError(f"only scripts are loaded again; {handler.name} is a Python handler")
        handler.reload()
        self.settle()

    def settle(self) -> None:
        """Wait until the server has nothing to do.

        Afterwards, raise the exception that the handler has raised, if there is one.

        The methods of clients do this themselves. This method does not wait for timers or threads of the handler.
        """
        self._wait()
        self._raise_failure()

    def _wait(self) -> None:
        deadline = monotonic() + self._deadline_s
        while True:
            before = self._moved()
            for client in self._clients:
                client.wait_idle(deadline)
            for endpoint in self.app.endpoints:
                for session in endpoint.sessions():
                    self._check(endpoint.handler.catch_up(session, max(0.0, deadline - monotonic())))
                for part in (endpoint.suspensions, endpoint.handler, endpoint.roster, endpoint.ownership):
                    self._check(part.settle(max(0.0, deadline - monotonic())))
            if self.app._link is not None:
                self.app._link.pending.wait_all(max(0.0, deadline - monotonic()))
            for threads in (self.app._drainer, self.app._writers):
                threads.wait_idle(max(0.0, deadline - monotonic()))
            if self._moved() == before and all(client.is_idle for client in self._clients):
                break
            if monotonic() > deadline:
                raise TimeoutError(f"the clients and the handler are still busy after {self._deadline_s:g} s")
        self._clients = [client for client in self._clients if not client.is_over or client.may_come_back]

    def _check(self, is_done: bool) -> None:
        """Raise `TimeoutError` if `is_done`, the result of a wait for the handler, is False."""
        if not is_done:
            raise TimeoutError(f"a call of the handler has not returned in {self._deadline_s:g} s")

    def _path_for(self, path: str | None) -> str:
        """Returns the path to connect to."""
        path = path or self._chosen()
        if is_rule(path):
            raise UsageError(f"{path} has parameters: connect to a path such as {example_of(path)}")
        return path

    def _endpoint(self, path: str | None) -> Endpoint:
        """Returns the endpoint for a path."""
        path = path or self._chosen()
        match = self.app._routing.match(path) or self.app._routing.match_rule(path)
        return self.app.endpoint(path) if match is None or is_rule(path) else match.endpoint

    def _chosen(self) -> str:
        if self._path is None:
            known = ", ".join(endpoint.path for endpoint in self.app.endpoints)
            raise UsageError(f"there are several endpoints; choose one with path=: {known}")
        return self._path

    def _moved(self) -> int:
        """Returns a number that grows while something happens.

        This may be on a connection, in a handler's function for rooms, or at the end of a session.

        `_wait` reads the number twice. So it does not miss a thread that has queued work, but is not idle yet.
        """
        calls = sum(endpoint.ownership.moved + endpoint.suspensions.moved for endpoint in self.app.endpoints)
        return calls + sum(client.moved for client in self._clients)

    def _failed(self, error: BaseException | str) -> None:
        """Note an error of the handler. The handler calls this in any thread."""
        self.errors.append(HandlerFailed(error) if isinstance(error, str) else error)

    def _raise_failure(self) -> None:
        first, self._raised = self._raised, len(self.errors)
        if self._raise_errors and first < self._raised:
            error = self.errors[first]
            if isinstance(error, KeyboardInterrupt):
                raise HandlerFailed("the handler raised KeyboardInterrupt") from error
            raise error

    def end(self) -> None:
        """Close all clients with the code 1001, and stop the handler. Idempotent.

        If `play` got an app, only the clients and the bans of the test end, and the app can be used further.
        """
        self._has_ended = True
        if self._is_ours:
            self.app.shutdown(END_TIMEOUT_S)
        else:
            self._end_clients()
        for end in self._ends:
            end()

    def _end_clients(self) -> None:
        """End all clients, so that the app is in the same state as before `play`."""
        for client in self.clients:
            client.vanish()
        self._wait()
        config = self.app.config
        self._timers.advance(config.resume_s + 1, between=self._wait)  # afterwards, no session is suspended
        self._timers.advance(config.presence_grace_s + 1, between=self._wait)  # afterwards, all persons have left
        for endpoint in self.app.endpoints:
            vars(endpoint.handler).pop("on_failure", None)
            _use_timers(endpoint, self.app._flusher)
            endpoint.directory.bans = self._bans[endpoint.path]

    def __enter__(self) -> Play:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if error is None:
            self._raise_failure()
