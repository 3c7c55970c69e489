"""The server process: the app under test, and a control endpoint that reports the state of the process.

``python -m tests.stress.server`` runs the server of `wsthreads run`; gunicorn uses `create_app`. Both end with their
standard input, so that no server outlives a killed stress test.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Thread, current_thread, enumerate
from typing import Any
from urllib.parse import parse_qs

from tests.stress.faults import Reaper
from tests.stress.handler import Handler
from tests.stress.perturb import perturb
from wsthreads import Session, WebSocketApp
from wsthreads.protocol import writer_threads
from wsthreads.protocol.connection import Connection
from wsthreads.protocol.outbox import Outbox
from wsthreads.servers.serving import Server
from wsthreads.sessions.dialogue import Dialogue
from wsthreads.sessions.endpoint import Endpoint
from wsthreads.testing.timers import ManualTimers

HANDLERS = ("python", "javascript")

#: More bytes than a client that still reads can have queued. So closing a client as too slow is a violation.
MAX_OUTBOX_BYTES = 256 * 1024 * 1024
SEND_TIMEOUT_S = 120.0

#: A closing client first reads all queued messages, however long that takes.
CLOSE_TIMEOUT_S = 120.0

#: So many members make a large room, which several threads write to.
LARGE_ROOM = 6

#: The time in which a script has a core; no call but an endless one may take so long. On a busy machine, an endless one
#: takes up to `MAX_STRETCH` times as long. Then, too, it must be stopped long before the other clients lose patience:
#: their messages wait for it, and for each other after it.
SCRIPT_TIMEOUT_S = 1.0

#: A script that loops delays replies and handshakes of all others. None of them may fail by that.
REQUEST_TIMEOUT_S = HANDSHAKE_TIMEOUT_S = SCRIPT_WAIT_S = 120.0

PING_INTERVAL_S = 0.5  # `run` changes it
PING_TIMEOUT_S = 120.0

#: A session waits for its client until the control endpoint moves the clock by this.
RESUME_S = 3600.0

#: Types that must not be in memory after the last client.
MORTALS = (Session, Connection, Outbox, Dialogue)


class App(WebSocketApp):
    """Adds difficulties that a client requests in its handshake's query.

    `buffer` sets the socket's send buffer, so that writes are partial. `pauses` is a seed for `perturb`.
    """

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        query = parse_qs(environ.get("QUERY_STRING", ""))
        for size in query.get("buffer", ()):
            sock = environ.get("werkzeug.socket") or environ.get("gunicorn.socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, int(size))
        perturb(query.get("pauses", [None])[0])  # or turn it off: gunicorn's threads serve several connections in turn
        return super().__call__(environ, start_response)


def create_app(handler: str, clients: int) -> App:
    """The app, for `clients` at once, and for disconnected ones that have not ended yet."""
    writer_threads.LEAST_MEMBERS, writer_threads.LEAST_PART = LARGE_ROOM, 1
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(threadName)s %(message)s")
    app = App(
        lambda environ, start_response: control(environ, start_response),
        max_outbox_bytes=MAX_OUTBOX_BYTES,
        send_timeout_s=SEND_TIMEOUT_S,
        close_timeout_s=CLOSE_TIMEOUT_S,
        ping_interval_s=PING_INTERVAL_S,
        ping_timeout_s=PING_TIMEOUT_S,
        max_sessions=3 * clients + 100,
        script_timeout_s=SCRIPT_TIMEOUT_S,
        script_wait_s=SCRIPT_WAIT_S,
        handshake_timeout_s=HANDSHAKE_TIMEOUT_S,
        request_timeout_s=REQUEST_TIMEOUT_S,
        resume_s=RESUME_S,
        max_resume_bytes=MAX_OUTBOX_BYTES,
        max_suspended_sessions=100_000,
    )
    if handler == "javascript":
        endpoint = app.add_script("/stress", Path(__file__).with_name("handler.js"))
    else:
        endpoint = app.add_handler("/stress", Handler)
    endpoint.suspensions.timers = clock = ManualTimers()
    control = Control(app, endpoint, clock)
    Thread(target=end_with_parent, name="stress-parent-watch", daemon=True).start()
    return app


class Control:
    """``GET /control``: the state of the process, as JSON.

    ``?switch_interval=`` and ``?ping_interval=`` set these. ``?lapse`` ends the sessions whose clients are away: none
    may be about to come back. ``?kill=`` kills a thread (see `Reaper`). ``?memory`` also reports objects in memory.
    ``?quiet`` checks the invariants; only at a quiet point, because this assumes that nothing changes.
    """

    def __init__(self, app: App, endpoint: Endpoint, clock: ManualTimers) -> None:
        self._app, self._endpoint, self._clock = app, endpoint, clock
        self._reaper = Reaper(app, endpoint)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        for interval in query.get("switch_interval", ()):
            sys.setswitchinterval(float(interval))
        for interval in query.get("ping_interval", ()):
            object.__setattr__(self._app.config, "ping_interval_s", float(interval))
        if "lapse" in query:
            self._clock.advance(RESUME_S)
        for what in query.get("kill", ()):
            self._reaper.kill(what)
        body = json.dumps(self._state("memory" in query, "quiet" in query)).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _state(self, with_memory: bool, is_quiet: bool) -> dict[str, Any]:
        rooms = self._endpoint.rooms
        return {
            "pid": os.getpid(),
            "sessions": self._endpoint.session_count(),
            "taken": self._app.session_count,
            "suspended": len(self._endpoint.suspensions),
            "timers of suspended": len(self._clock._timers),
            "rooms": {name: rooms.count(name) for name in rooms.names()},
            "unsent": self._unsent(),
            "threads": sorted(thread.name for thread in enumerate() if thread is not current_thread()),
            "descriptors": _descriptors(),
            "broken": self._broken() if is_quiet else [],
            "in memory": _in_memory() if with_memory else {},
            "metrics": self._app.metrics.snapshot(),
            "deaths": self._reaper.deaths,
        }

    def _unsent(self) -> list[str]:
        """Sessions with queued bytes. At a quiet point, there must be none."""
        waiting = []
        for session in self._endpoint.sessions():
            outbox = session._outbox
            if outbox._queue or outbox._backlog_bytes():
                waiting.append(
                    f"{session.get_parameter('name')}: {len(outbox._queue)} queued, {outbox._backlog_bytes()} bytes "
                    f"behind them, blocked {outbox.is_blocked}, draining {outbox._draining}"
                )
        return waiting

    def _broken(self) -> list[str]:
        """The violated invariants."""
        endpoint, rooms = self._endpoint, self._endpoint.rooms
        checks = [rooms._check, rooms._members._check, endpoint._service.served._check]
        checks += [session._outbox._check for session in endpoint.sessions()]
        broken = []
        for check in checks:
            try:
                check()
            except AssertionError as error:
                broken.append(f"{check.__qualname__}: {error}")
        return broken


def _descriptors() -> list[str]:
    """What each open file descriptor is, if the system reports it."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    found = []
    for name in os.listdir(folder):
        with suppress(OSError):  # the descriptor of listdir() itself
            os.fstat(int(name))
            found.append(os.readlink(f"{folder}/{name}") if folder.startswith("/proc") else name)
    return sorted(found)


def _in_memory() -> dict[str, int]:
    gc.collect()
    counts = Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, MORTALS))
    return dict(counts)


def end_with_parent() -> None:
    with suppress(OSError):
        while os.read(0, 1024):  # not sys.stdin, whose lock would block the end of the process
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    # gunicorn's master would start another worker.
    if "gunicorn" in sys.modules and os.getppid() > 1:
        os.kill(os.getppid(), signal.SIGTERM)


def main() -> int:
    """Serve on a free loopback port, which the log shows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--handler", choices=HANDLERS, required=True)
    parser.add_argument("--clients", type=int, required=True)
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # its access log
    server = Server(create_app(options.handler, options.clients), port=0)
    print(f"Listening at: {server.url}", file=sys.stderr, flush=True)
    return server.run()


if __name__ == "__main__":
    sys.exit(main())
