"""A process that has imported a package, and forks a copy of itself for each program that is to start.

``python tests/nursery.py SOCKET MODULE...`` is started by `tests.warm`, which sends it one message for each program.
It has one thread and no state of its own. A copy gives up what it has from here, and becomes the program.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import resource
import runpy
import socket
import sys
from typing import Any

#: Bytes of a message, and files with it, at most.
MESSAGE_BYTES, MESSAGE_FILES = 1 << 20, 64

#: Files get numbers from here while those that they are to have may be another file's.
ASIDE = 500


def serve(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Answer each message with the number of a process. Returns twice or more: None at the end, a start in a copy."""
    while True:
        message, files, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, MESSAGE_FILES)
        if not message:
            return None
        ready, go = os.pipe()
        between = os.fork()
        if not between:
            program = os.fork()
            if program:  # this process ends, so that the program's parent is the one that has asked for it
                channel.send(b"%d" % program)
                os._exit(0)
            os.close(go)
            os.read(ready, 1)  # until its parent has changed
            return json.loads(message), files
        os.waitpid(between, 0)
        channel.send(b"started")
        for file in (ready, go, *files):
            os.close(file)


def become(start: dict[str, Any], files: list[int], library: list[str]) -> None:
    """Make this process the one that a start of Python makes, as far as it can be told apart."""
    if start["new_session"]:
        os.setsid()
    _take(dict(zip(start["numbers"], files, strict=True)))
    for kind, limits in start["limits"]:
        resource.setrlimit(kind, limits)
    if start["cores"]:
        os.sched_setaffinity(0, start["cores"])
    os.chdir(start["folder"])
    os.environ.clear()
    os.environ.update(start["environment"])
    paths = start["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [os.getcwd(), *(os.path.abspath(path) for path in paths if path), *library]
    importlib.invalidate_caches()
    sys.orig_argv[:] = start["command"]
    sys.argv[:] = start["command"][2:]
    _open_streams()


def _take(files: dict[int, int]) -> None:
    """Have these files, by the numbers that they are to have, and no other."""
    aside = {}
    for place, (number, file) in enumerate(files.items()):
        os.dup2(file, ASIDE + place, inheritable=False)
        aside[number] = ASIDE + place
    os.closerange(0, ASIDE)
    for number, file in aside.items():
        os.dup2(file, number)
    os.closerange(ASIDE, ASIDE + len(aside))


def _open_streams() -> None:
    """As at a start: the kind of each file decides how it is buffered."""
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        earlier = getattr(sys, name)
        file: Any = io.FileIO(number, "w" if number else "r", closefd=False)
        file.name = f"<{name}>"
        binary = file if number and unbuffered else io.BufferedWriter(file) if number else io.BufferedReader(file)
        stream = io.TextIOWrapper(
            binary,
            earlier.encoding,
            earlier.errors,
            newline="\n",
            line_buffering=not unbuffered and (number == 2 or file.isatty()),
            write_through=unbuffered,
        )
        stream.mode = file.mode[0]  # type: ignore[misc]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    library = sys.path[1:]
    sys.path[:] = [os.getcwd(), *library]
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else each copy has to copy all of these objects, as soon as garbage is collected in it
    try:
        start = serve(channel)
    except KeyboardInterrupt:  # Ctrl-C reaches all that were started from a terminal
        return
    channel.detach()
    if start is not None:
        become(*start, library)
        runpy.run_module(start[0]["command"][2], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
