"""The servers: their names, and how to start them.

All serve the same endpoints, without compression and without Nagle's algorithm. (Werkzeug leaves Nagle's algorithm on,
which would cost up to 40 ms per message.) ``NAME@1`` is a server on one core. There, threaded Python is faster than on
two cores, because the GIL stays on one core.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.bench.processes import ServerProcess
from tests.bench.tools import HERE, ROOT, Tools
from tests.ports import free_port

__all__ = ["BEFORE", "ONE_CORE", "SERVERS", "THREADED_PEERS", "Server", "find_server", "in_checkout"]

ONE_CORE = "@1"

#: The end of the name of a server that runs from another checkout.
BEFORE = "-before"

SOCKET_IO = ("-S",)

#: Room for the largest scenario; the default of wsthreads is 1,000.
MAX_SESSIONS = 20_000

Command = Callable[[Tools, str, int], list[str]]  # (tools, endpoint, port) → command line


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server to measure."""

    name: str
    label: str
    command: Command
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    endpoints: tuple[str, ...] = ("echo", "room")
    one_core: bool = False
    dialect: tuple[str, ...] = ()  # wsload's option for what is spoken on top of WebSocket

    @property
    def is_ours(self) -> bool:
        """Whether the server is wsthreads."""
        return self.name.startswith("wsthreads")

    def why_not(self, tools: Tools) -> str | None:
        """Why the server cannot run here; None if it can."""
        return next((f"{need}: {tools.missing[need]}" for need in self.needs if need in tools.missing), None)

    def path(self, endpoint: str) -> str:
        """The URL's path of an endpoint."""
        return f"/{endpoint}/?EIO=4&transport=websocket" if self.dialect == SOCKET_IO else f"/{endpoint}"

    def start(self, tools: Tools, endpoint: str, log_file: Path, *, pings: bool = False) -> ServerProcess:
        """The server's process, as a context manager. Peers send pings if `pings` is true; wsthreads always does."""
        port = free_port()
        env = {
            "PYTHONPATH": str(ROOT),  # this checkout of wsthreads
            "WSTHREADS_PURE_PYTHON": None,  # remove it
            "WSTHREADS_REDIS": None,
            "PORT": str(port),
            "PING": str(int(pings)),
            **self.env,
        }
        return ServerProcess(
            self.command(tools, endpoint, port),
            port,
            log_file,
            env=env,
            directory=tools.build,
            one_core=self.one_core,
        )


def _wsthreads(suffix: str, *options: str, file: str | None = None) -> Command:
    def command(tools: Tools, endpoint: str, port: int) -> list[str]:
        handler = str(HERE / "handlers" / (file or f"{endpoint}{suffix}"))
        run = [str(tools.python), "-m", "wsthreads", "run", handler, "--path", f"/{endpoint}", "--port", str(port)]
        return [*run, "--max-sessions", str(MAX_SESSIONS), "--log-level", "warning", *options]

    return command


def _gunicorn(worker: str, app: Callable[[str], str], workers: int = 1) -> Command:
    def command(tools: Tools, endpoint: str, port: int) -> list[str]:
        threads = str(MAX_SESSIONS)
        options = ["-k", worker, "-w", str(workers), "--threads", threads, "--worker-connections", threads]
        options += ["--log-level", "error"]
        return [str(tools.python), "-m", "gunicorn", *options, "-b", f"127.0.0.1:{port}", app(endpoint)]

    return command


def _python(script: str) -> Command:
    return lambda tools, endpoint, port: [str(tools.python), str(HERE / "peers" / "py" / script)]


def _create_app(endpoint: str) -> str:
    file = HERE / "handlers" / f"{endpoint}.py"
    return f"wsthreads:create_app({os.fspath(file)!r}, path='/{endpoint}', max_sessions={MAX_SESSIONS})"


def _with_redis(command: Command) -> Command:
    """Adds a Redis of its own, as a child of the server."""

    def with_redis(tools: Tools, endpoint: str, port: int) -> list[str]:
        redis_port = free_port()
        redis = f'{tools.redis_server} --port {redis_port} --bind 127.0.0.1 --save "" --loglevel warning'
        url = f"redis://127.0.0.1:{redis_port}"
        return ["sh", "-c", f'{redis} & WSTHREADS_REDIS={url} exec "$@"', "sh", *command(tools, endpoint, port)]

    return with_redis


def _publisher(script: str) -> Command:
    """Not a server: a program that publishes. Its arguments are a URL and the seconds. See `probes.publish_rate`."""
    return lambda tools, endpoint, port: [str(tools.python), str(HERE / "publishers" / script)]


def _limit_threads(name: str, label: str, **env: str) -> Server:
    return Server(
        name=name,
        label=label,
        command=lambda tools, endpoint, port: [str(tools.limit_threads), str(port)],
        needs=("limit_threads",),
        env=env,
        endpoints=("echo",),
    )


def _without_gil(name: str, label: str, what: str) -> Server:
    """Not a server: a program that measures with and without a GIL. See `probes.gain_without_gil`."""
    return Server(
        name=name,
        label=label,
        command=lambda tools, endpoint, port: [
            str(tools.free_threaded_python), "-m", "tests.bench.free_threading", "--only", what
        ],
        needs=("free-threaded",),
        endpoints=("work",),
    )


REDIS = ("redis", "redis-server")
PURE = {"WSTHREADS_PURE_PYTHON": "1"}
WERKZEUG = {"NODELAY": "1"}

_ALL = (
    Server(name="wsthreads", label="wsthreads", command=_wsthreads(".py")),
    Server(name="wsthreads-pure", label="wsthreads, pure Python", command=_wsthreads(".py"), needs=("speedups",),
           env=PURE),
    Server(name="wsthreads-limited", label="wsthreads, 20 messages a second from each",
           command=_wsthreads(".py", "--max-messages-per-s", "20"), endpoints=("crowd",)),
    Server(name="wsthreads-resume", label="wsthreads, sessions survive", dialect=("-E",),
           command=_wsthreads(".py", "--resume-s", "60")),
    Server(name="wsthreads-requests", label="wsthreads, requests", dialect=("-Q",), endpoints=("echo",),
           command=_wsthreads(".py", "--resume-s", "60", file="requests.py")),
    Server(name="wsthreads-js", label="wsthreads, JavaScript handler", command=_wsthreads(".js"), needs=("dukpy",)),
    Server(name="wsthreads-js-pure", label="wsthreads JS, pure Python", command=_wsthreads(".js"),
           needs=("dukpy", "speedups"), env=PURE),
    Server(name="wsthreads-js-heap", label="wsthreads JS, 100,000 objects",
           command=_wsthreads(".js", file="heap.js"), needs=("dukpy",), endpoints=("echo",)),
    Server(name="wsthreads-gunicorn", label="wsthreads under gunicorn", needs=("gunicorn",),
           command=_gunicorn("wsthreads.gunicorn.ThreadWorker", _create_app)),
    Server(name="wsthreads-redis", label="wsthreads over Redis", command=_with_redis(_wsthreads(".py")), needs=REDIS),
    Server(name="wsthreads-redis-2", label="wsthreads over Redis, 2 workers",
           command=_with_redis(_gunicorn("wsthreads.gunicorn.ThreadWorker", _create_app, workers=2)),
           needs=(*REDIS, "gunicorn")),
    Server(name="wsthreads-publish", label="wsthreads", command=_publisher("wsthreads_publish.py"), needs=REDIS,
           endpoints=("publish",)),
    Server(name="socketio-publish", label="python-socketio, Redis manager",
           command=_publisher("socketio_publish.py"), needs=(*REDIS, "python-socketio"), endpoints=("publish",)),
    Server(name="limit", label="one send() per delivery, in C", needs=("limit",),
           command=lambda tools, endpoint, port: [str(tools.limit), str(port)]),
    Server(name="limit-joined", label="one send() per member and turn, in C", needs=("limit",), env={"JOIN": "1"},
           command=lambda tools, endpoint, port: [str(tools.limit), str(port)], endpoints=("room",)),
    _limit_threads("limit-threads", "a thread for each connection, in C"),
    _limit_threads("limit-threads-lock", "a thread for each, in C, one mutex", ONE_LOCK="1"),
    _limit_threads("limit-threads-lines", "a thread for each, in C, 92 cache lines", OWN_LINES="92"),
    _without_gil("wsthreads-free", "wsthreads, without a GIL", "serve"),
    _without_gil("threads-free", "two threads that compute", "compute"),
    Server(name="flask-sock", label="flask-sock", command=_python("flask_sock_app.py"), needs=("flask-sock",),
           env=WERKZEUG),
    Server(name="flask-sock-gunicorn", label="flask-sock under gunicorn", needs=("flask-sock", "gunicorn"),
           command=_gunicorn("gthread", lambda endpoint: "flask_sock_app:app"),
           env={"PYTHONPATH": str(HERE / "peers" / "py")}),
    Server(name="websockets", label="python-websockets (sync)", command=_python("websockets_sync.py"),
           needs=("websockets",)),
    Server(name="socketio", label="python-socketio (threading)", command=_python("socketio_app.py"),
           needs=("python-socketio", "simple-websocket"), env=WERKZEUG, dialect=SOCKET_IO),
    Server(name="aiohttp", label="aiohttp on uvloop", command=_python("aiohttp_app.py"), needs=("aiohttp", "uvloop"),
           env={"LOOP": "uvloop"}),
    Server(name="picows", label="picows on uvloop", command=_python("picows_app.py"), needs=("picows", "uvloop")),
    Server(name="socketify", label="socketify", command=_python("socketify_app.py"), needs=("socketify",)),
    Server(name="ws", label="ws on Node", needs=("node", "ws"),
           command=lambda tools, endpoint, port: ["node", str(tools.node_folder / "ws_server.mjs")]),
    Server(name="bun", label="Bun", needs=("bun",),
           command=lambda tools, endpoint, port: [str(tools.bun), str(tools.node_folder / "bun_server.js")]),
)  # fmt: skip

SERVERS: Mapping[str, Server] = {server.name: server for server in _ALL}

#: Peers with one thread per connection, like wsthreads.
THREADED_PEERS = ("flask-sock", "flask-sock@1", "websockets", "websockets@1", "socketio", "socketio@1")


def find_server(name: str) -> Server:
    """The server of that name, which may end in ``@1``. Raises `KeyError` that lists the known ones."""
    base = name.removesuffix(ONE_CORE)
    try:
        server = SERVERS[base]
    except KeyError:
        raise KeyError(f"there is no server {name!r}; there are: {', '.join(SERVERS)}") from None
    return server if base == name else replace(server, name=name, label=f"{server.label}, one core", one_core=True)


def in_checkout(server: Server, checkout: Path) -> Server:
    """The same server from another checkout of wsthreads."""
    env = {**server.env, "PYTHONPATH": str(checkout)}
    return replace(server, name=server.name + BEFORE, label=f"{server.label}, before", env=env)
