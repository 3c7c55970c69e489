"""``wsthreads run`` without one of its tricks: ``python -m tests.bench.trick_server TRICK SPEEDUPS ARGUMENTS…``.

TRICK is one of `WITHOUT`; "none" leaves nothing out. SPEEDUPS is a build of the C module to use instead of ours, since
some tricks are numbers in C; "-" is ours. The arguments are those of ``wsthreads run``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location

__all__ = ["WITHOUT"]

C_MODULE = "wsthreads._native._speedups"


def _use_speedups(file: str) -> None:
    spec = spec_from_file_location(C_MODULE, file, loader=ExtensionFileLoader(C_MODULE, file))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[C_MODULE] = module_from_spec(spec)
    spec.loader.exec_module(module)


def _schedule(**methods: Callable[..., object]) -> None:
    """Have apps use a scheduling with other methods."""
    from wsthreads.app import application
    from wsthreads.threads.gil import GILScheduling

    application.scheduling_for = type("Scheduling", (GILScheduling,), methods)


def _without_batch() -> None:
    _schedule(session_thread=lambda self: self.affinity.pin())


def _without_leaving_batch() -> None:
    _schedule(joins_room=lambda self: None)


def _without_pace() -> None:
    _schedule(most_unread=lambda self: None)


def _without_few_arenas() -> None:
    from wsthreads.threads import malloc

    malloc.limit_arenas = lambda: None


def _without_readers() -> None:
    from wsthreads.javascript import ScriptHandler

    ScriptHandler.reader = lambda self, session, descriptor: None  # type: ignore[method-assign]


#: By the trick's name, what leaves it out of this process. Tricks of the C module are left out of its build.
WITHOUT: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "batch": _without_batch,
    "rooms": _without_leaving_batch,
    "pace": _without_pace,
    "arenas": _without_few_arenas,
    "inbox": _without_readers,
}


def main() -> None:
    trick, speedups, *arguments = sys.argv[1:]
    if speedups != "-":
        _use_speedups(speedups)
    WITHOUT[trick]()
    from wsthreads.cli.commands import main as run

    sys.argv = ["wsthreads", "run", *arguments]
    run()


if __name__ == "__main__":
    main()
