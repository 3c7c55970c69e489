"""A `Client` in a process that was forked from its own: it is the parent's, and does nothing to its session."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading

import pytest

from tests.client.fake_server import DLE
from tests.programs import DEADLINE_S, wait_until
from wsthreads import Client, SessionClosed

THEIRS = "the client is closed: it belongs to the process from which this one was forked"


class Forked:
    """A forked process that writes what `act` returns, and lives until the end of the `with` block."""

    def __init__(self, act):
        self._reading, writing = os.pipe()
        stay, self._stay = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(self._stay)
            write_result(writing, act)
            os.read(stay, 1)
            os._exit(0)
        os.close(writing)
        os.close(stay)

    def __enter__(self):
        return self

    def result(self):
        ready = select.select([self._reading], [], [], DEADLINE_S)[0]
        return os.read(self._reading, 10_000).decode() if ready else "it waits for ever"

    def __exit__(self, *error):
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._reading)
        os.close(self._stay)


def write_result(writing, act):
    try:
        result = act()
    except BaseException as error:
        result = f"{type(error).__name__}: {error}"
    os.write(writing, str(result).encode())


def leave(client):
    with client:
        sys.exit(3)


def state(client):
    return client.is_connected, client.closed[0], client.session_id, repr(client).rpartition(" ")[2]


ACTS = {
    "send": (lambda client: [client.send(f"no {number}") for number in range(3)], "[False, False, False]"),
    "request": (lambda client: client.request("no", timeout=DEADLINE_S), f"SessionClosed: {THEIRS}"),
    "receive": (lambda client: client.receive(), f"SessionClosed: {THEIRS}"),
    "iterate": (lambda client: list(client), f"SessionClosed: {THEIRS}"),
    "close": (lambda client: client.close(), "None"),
    "leave": (leave, "SystemExit: 3"),
    "state": (state, "(False, 1006, None, 'closed>')"),
}


@pytest.mark.parametrize("is_locked", [False, True], ids=["free", "locked"])
@pytest.mark.parametrize("name", ACTS)
def test_a_forked_process_does_nothing_to_the_session_of_its_parent(server, connect, name, is_locked):
    act, expected = ACTS[name]
    client = connect()
    peer = server.welcomed()
    peer.send("for the parent")
    wait_until(lambda: client._engine.inbox)
    held, release = threading.Event(), threading.Event()

    def hold():
        with client._engine.lock, client._engine.application._answers._lock:
            held.set()
            assert release.wait(2 * DEADLINE_S)

    holder = threading.Thread(target=hold)
    if is_locked:
        holder.start()
        assert held.wait(DEADLINE_S)
    try:
        with Forked(lambda: act(client)) as forked:
            assert forked.result()[: len(expected)] == expected
    finally:
        release.set()
        if is_locked:
            holder.join(DEADLINE_S)
    assert client.send("from the parent")
    assert peer.receive() == "from the parent"
    assert client.receive(timeout=DEADLINE_S) == "for the parent"
    assert client.is_connected
    assert client.closed is None


@pytest.mark.parametrize("is_open", [False, True], ids=["handshake", "open"])
def test_the_connection_ends_though_the_forked_process_lives(server, connect, is_open):
    client = connect()
    peer = server.welcomed() if is_open else server.next()
    if is_open:
        wait_until(lambda: client.is_connected)
    with Forked(lambda: "there") as forked:
        assert forked.result() == "there"
        if is_open:
            peer.send(DLE + "?")  # against the protocol
        else:
            client.close()
        assert peer.receive() is None
        with contextlib.suppress(ConnectionResetError):
            assert peer._sock.recv(1) == b""


def test_a_forked_process_makes_a_client_of_its_own(server, connect):
    client = connect()
    peer = server.welcomed()

    def act():
        own = Client(server.url)
        own.send("from the forked process")
        return own.receive(timeout=DEADLINE_S)

    with Forked(act) as forked:
        own = server.welcomed(token="s.2")
        assert own.receive() == "from the forked process"
        own.send("to the forked process")
        assert forked.result() == "to the forked process"
    client.send("from the parent")
    assert peer.receive() == "from the parent"


def test_a_signal_handler_that_forks_ends_the_wait_in_the_forked_process(server, connect):
    client, parent = connect(), os.getpid()
    peer = server.welcomed()
    reading, writing = os.pipe()
    pids = []

    def interrupt():
        wait_until(lambda: client._engine.arrived._waiters)
        os.kill(parent, signal.SIGUSR1)
        wait_until(lambda: pids)
        peer.send("for the parent")

    before = signal.signal(signal.SIGUSR1, lambda *_: pids.append(os.fork()))
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        if os.getpid() == parent:
            try:
                message = client.receive(timeout=2 * DEADLINE_S)
            except SessionClosed as error:
                message = str(error)
            if os.getpid() != parent:
                os.write(writing, message.encode())
                os._exit(0)
    finally:
        if os.getpid() != parent:
            os._exit(1)
        signal.signal(signal.SIGUSR1, before)
        thread.join(DEADLINE_S)
    assert message == "for the parent"
    os.close(writing)
    try:
        assert select.select([reading], [], [], DEADLINE_S)[0]
        assert os.read(reading, 10_000).decode().startswith(THEIRS)
    finally:
        os.close(reading)
        os.kill(pids[0], signal.SIGKILL)
        os.waitpid(pids[0], 0)


@pytest.mark.parametrize("name", ["url", "on_open", "on_request"])
def test_a_process_that_a_function_of_the_client_forks_ends_with_the_function(server, connect, name):
    pids = []

    def fork(*_):
        pids.append(os.fork())
        return server.url if name == "url" else "answer"

    connect(**{name: fork})
    peer = server.welcomed()
    if name == "on_request":
        peer.send(f"{DLE}q1:?")
        assert peer.receive() == f"{DLE}r1:answer"
    wait_until(lambda: pids)
    ended = []
    try:
        wait_until(lambda: ended.append(os.waitpid(pids[0], os.WNOHANG)) or ended[-1][0])
        assert os.waitstatus_to_exitcode(ended[-1][1]) == 0
    finally:
        if not ended[-1][0]:
            os.kill(pids[0], signal.SIGKILL)
            os.waitpid(pids[0], 0)
