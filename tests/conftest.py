"""Fixtures for all tests; plain helpers are in `tests.programs`.

WSTHREADS_TEST_SWITCH_INTERVAL is how long a thread may hold the GIL while others want it, in seconds, instead of
Python's 0.005: with 0.000001, threads get in between any two instructions of each other.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import hypothesis
import pytest

from tests.browsing import browser, picture, window  # noqa: F401, these are fixtures
from tests.dashboard_windows import guests, host_script, page_of  # noqa: F401
from tests.programs import DEADLINE_S, note_threads, wait_until
from tests.redis_server import RedisServer
from wsthreads.app import WebSocketApp
from wsthreads.brokers.redis import RedisBroker
from wsthreads.servers.serving import Server
from wsthreads.threads.flusher import Flusher

# How long an example takes, or is made, says more about the machine than about the code.
slow = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("wsthreads", deadline=None, suppress_health_check=slow)
hypothesis.settings.load_profile("wsthreads")


def pytest_configure() -> None:
    if interval := os.environ.get("WSTHREADS_TEST_SWITCH_INTERVAL"):
        sys.setswitchinterval(float(interval))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in the background of a script. Programs that are started here would inherit it, and ignore their Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


#: Files that take half a minute or more, although none of their tests does.
LONG = {
    f"tests/{name}.py"
    for name in (
        "brokers/test_handover", "brokers/test_redis_broker", "brokers/test_redis_cluster",
        "brokers/test_shared_presence", "cli/test_cli", "client/test_browser", "client/test_browser_client",
        "client/test_example_pages", "dashboard/test_page", "javascript/test_deadlines",
        "javascript/test_reload_timers", "monitoring/test_gunicorn_logs", "servers/test_serving",
    )
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: begun last, they would run on while all other processes have nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None and item.location[0] not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector off the collected tests: a million objects, which all stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a test by the size of its bytes: a frame's mask is random, and each process must name the tests alike."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a report's captured text UTF-8: with lone surrogates, no report passes from one process to another."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def earlier_threads() -> None:
    """See `tests.programs.own_threads`."""
    note_threads()


@pytest.fixture
def flusher() -> Iterator[Flusher]:
    """A flusher that runs."""
    flusher = Flusher()
    flusher.start()
    yield flusher
    flusher.stop(DEADLINE_S)


@pytest.fixture
def apps_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shut down all apps that are made in the test, such as those of examples: other tests look for threads left."""
    made: list[WebSocketApp] = []
    make = WebSocketApp.__init__

    def note(app: WebSocketApp, *arguments: Any, **settings: Any) -> None:
        make(app, *arguments, **settings)
        made.append(app)

    monkeypatch.setattr(WebSocketApp, "__init__", note)
    yield
    for app in made:
        app.shutdown()


@pytest.fixture(autouse=True)
def brokers_end() -> Iterator[None]:
    """Close all brokers that are made in the test.

    Else their sockets are closed by the garbage collector, which may find a socket before its owner, and warns then: in
    any later test, where a warning is an error.
    """
    made: list[RedisBroker] = []
    make = RedisBroker.__init__

    def note(broker: RedisBroker, *arguments: Any, **options: Any) -> None:
        make(broker, *arguments, **options)
        made.append(broker)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisBroker, "__init__", note)
        yield
    for broker in made:
        broker.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis for all tests that do not break it, and that have a prefix or an endpoint of their own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Serve an app on a free port: ``server = serve(app)``, then ``server.ws_url``.

    At the end of the test every server is stopped, and no thread of theirs may be left.
    """
    before = set(threading.enumerate())
    servers: list[Server] = []

    def start(app: WebSocketApp, **options: Any) -> Server:
        server = Server(app, **{"port": 0, **options})
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()
    wait_until(lambda: not _left_over(before), f"the end of {_left_over(before)}")


def _left_over(before: set[threading.Thread]) -> list[str]:
    """Threads that have come up and are no client's."""
    new = set(threading.enumerate()) - before
    return [thread.name for thread in new if "recv_events" not in thread.name]
