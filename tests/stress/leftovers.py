"""What must have gone from the server when sessions have ended, and when all have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from tests.stress.history import SCALE, Wrong
from tests.stress.process import ServerProcess

#: Sessions that have ended have gone by then.
GONE_S = 12.0 * SCALE

POLL_S = 0.02

#: Threads that a process has one of, from the first time that it needs it.
SINGLE_THREADS = ("wsthreads-flusher", "wsthreads-drainer")

#: Those that gunicorn keeps for its next requests.
POOL_THREAD = "ThreadPoolExecutor"


def await_state(
    server: ServerProcess, what: str, done: Callable[[dict[str, Any]], bool], **query: object
) -> dict[str, Any]:
    """The state of the server, once `done` is true of it. Raises `Wrong` if it never is."""
    deadline = monotonic() + GONE_S
    while not done(state := server.ask(**query)):
        if monotonic() > deadline:
            shown = {key: state[key] for key in ("sessions", "taken", "rooms", "in memory")}
            raise Wrong("left over", f"{what} did not come about within {GONE_S:g} s: {shown}")
        sleep(POLL_S)
    return state


def check_left_over(server: ServerProcess, before: dict[str, Any]) -> None:
    """Proves that no session, room, thread, descriptor or object of a session stays when all clients have gone.

    Held against the process as it was after a first session. More than then may be idle threads of gunicorn's, and
    one each of `SINGLE_THREADS`.
    """

    def left(state: dict[str, Any]) -> dict[str, Any]:
        found = {key: state[key] for key in ("sessions", "taken", "rooms", "broken", "in memory") if state[key]}
        for key in ("threads", "descriptors"):
            more = _more(state[key], _with_singles(before[key]))
            if more:
                found[key] = more
        return found

    deadline = monotonic() + GONE_S
    while found := left(server.ask(memory="", quiet="")):
        if monotonic() > deadline:
            raise Wrong("left over", f"all clients have gone, and still there is {found}")
        sleep(POLL_S)


def _more(now: list[str], before: list[str]) -> list[str]:
    """What there is more of. Threads and sockets are told apart by kind, since each has a number of its own."""

    def kinds(names: list[str]) -> Counter[str]:
        return Counter(name.split(":")[0].split("_")[0] for name in names if not name.startswith(POOL_THREAD))

    return sorted((kinds(now) - kinds(before)).elements())


def _with_singles(names: list[str]) -> list[str]:
    return [*names, *(name for name in SINGLE_THREADS if name not in names)]
