import os
import platform
import re
import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.programs import DEADLINE_S, PROGRAM_S, ROOT, connect, receive, run_server
from wsthreads.threads.malloc import ARENAS

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**32,
    reason="arenas are glibc's",
)

#: Glibc has an arena of another thread than the first in so many bytes, at an address that they divide.
HEAP_BYTES = 2**26

#: More than `ARENAS`; by itself, glibc gives as many threads an arena each, with one core too.
THREADS = 6

#: Threads that live at once and allocate; printed is how many arenas they have, as an XML document of glibc's.
PROGRAM = f"""
import ctypes, sys, threading
from wsthreads.threads.malloc import limit_arenas

limit_arenas()
met = threading.Barrier({THREADS})

def allocate():
    held = bytearray(5000)
    met.wait({DEADLINE_S})

threads = [threading.Thread(target=allocate) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


#: Ours, without what would have a say in it.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD")
}


def arenas_of_threads(**env):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), **env},
        capture_output=True, text=True, timeout=PROGRAM_S, check=True,
    )  # fmt: skip
    return done.stdout.count("<heap nr=")


def arenas_of_process(pid):
    count = 1  # the first thread's, which is elsewhere
    mappings = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        start, end, access, inode = re.match(r"(\w+)-(\w+) (\S+) \S+ \S+ (\d+)", line).groups()
        mappings.append((int(start, 16), int(end, 16), access if inode == "0" else "a file"))
    for (start, used, access), (rest, end, rest_access) in pairwise(mappings):
        # Of its HEAP_BYTES, an arena has used the first. Other memory may begin at such an address by chance.
        is_one = start % HEAP_BYTES == 0 and rest == used and end >= start + HEAP_BYTES
        count += is_one and (access, rest_access) == ("rw-p", "---p")
    return count


def test_threads_share_few_arenas():
    assert arenas_of_threads() == ARENAS


@pytest.mark.parametrize(
    "env", [{"MALLOC_ARENA_MAX": "4"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}], ids=lambda env: next(iter(env))
)
def test_the_environment_has_the_last_word(env):
    assert arenas_of_threads(**env) == 4


@pytest.mark.skipif(not ENVIRONMENT.keys() >= os.environ.keys(), reason="the environment has a say in it")
def test_the_connections_of_a_server_share_few_arenas(tmp_path):
    handler = tmp_path / "echo.py"
    handler.write_text("def on_message(session, message): session.send(message)")
    with run_server(handler) as server, ExitStack() as clients:
        for _ in range(THREADS):
            client = clients.enter_context(connect(server.ws_url + "/ws/echo"))
            client.send("x" * 5000)
            assert receive(client) == "x" * 5000
        assert arenas_of_process(server.process.pid) <= ARENAS
