"""Checks that the server keeps nothing of ended sessions, and nothing at all after the last one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from tests.stress.history import SCALE, Wrong
from tests.stress.process import ServerProcess
from wsthreads.protocol.writer_threads import MOST_WRITERS
from wsthreads.sessions.suspensions import THREADS

#: How long ended sessions may still be found.
GONE_S = 12.0 * SCALE

POLL_S = 0.02

#: Threads that a process starts once, when it first needs them.
SINGLE_THREADS = (
    "wsthreads-flusher",
    "wsthreads-drainer",
    *(f"wsthreads-writer-{n}" for n in range(1, MOST_WRITERS)),
    *(f"wsthreads-ends-{n}" for n in range(1, THREADS + 1)),
)

#: What must be empty, or 0.
NOTHING = ("sessions", "taken", "suspended", "timers of suspended", "rooms", "broken", "in memory")

#: Threads that gunicorn keeps for later requests.
POOL_THREAD = "ThreadPoolExecutor"


def await_state(
    server: ServerProcess, what: str, done: Callable[[dict[str, Any]], bool], **query: object
) -> dict[str, Any]:
    """Wait until `done` is true of the server's state. Returns the state. Raises `Wrong` after the deadline."""
    deadline = monotonic() + GONE_S
    while not done(state := server.ask(**query)):
        if monotonic() > deadline:
            shown = {key: state[key] for key in ("sessions", "taken", "suspended", "rooms", "in memory")}
            raise Wrong("left over", f"{what} did not come about within {GONE_S:g} s: {shown}")
        sleep(POLL_S)
    return state


def check_left_over(server: ServerProcess, before: dict[str, Any]) -> None:
    """Proves that no session, room, thread, descriptor or object of a session remains after all clients are gone.

    Compares with the process after its first session. Only gunicorn's idle threads, and one each of `SINGLE_THREADS`,
    may have been added.
    """

    def left(state: dict[str, Any]) -> dict[str, Any]:
        found = {key: state[key] for key in NOTHING if state[key]}
        for key in ("threads", "descriptors"):
            more = _more(state[key], _with_singles(before[key]))
            if more:
                found[key] = more
        return found

    deadline = monotonic() + GONE_S
    while found := left(server.ask(memory="", quiet="", lapse="")):
        if monotonic() > deadline:
            raise Wrong("left over", f"all clients have gone, and still there is {found}")
        sleep(POLL_S)


def _more(now: list[str], before: list[str]) -> list[str]:
    """What was added. Threads and sockets are compared by kind, because each has its own number."""

    def kinds(names: list[str]) -> Counter[str]:
        return Counter(name.split(":")[0].split("_")[0] for name in names if not name.startswith(POOL_THREAD))

    return sorted((kinds(now) - kinds(before)).elements())


def _with_singles(names: list[str]) -> list[str]:
    return [*names, *(name for name in SINGLE_THREADS if name not in names)]
