"""Which clients count as stalled, with real sockets and a clock of the test's own."""

import socket
import struct
import sys

import pytest

from tests.programs import DEADLINE_S, wait_until
from wsthreads.servers.stalled_clients import STALL_S, StalledClients, _traffic

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stalls(clock):
    return StalledClients(clock)


@pytest.fixture
def pair():
    """A server's socket, and its client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), DEADLINE_S)
        server, _ = listener.accept()
    server.settimeout(DEADLINE_S)
    with client, server:
        yield server, client


def fill(server):
    """Write until the client's buffer takes no more."""
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            server.send(bytes(65536))
    server.settimeout(DEADLINE_S)


def test_a_client_that_sends_no_more_is_the_end_of_input_after_a_while(stalls, clock, pair):
    server, client = pair
    assert stalls.end([server]) == 0
    clock.now = STALL_S - 0.1
    assert stalls.end([server]) == 0
    clock.now = STALL_S
    assert stalls.end([server]) == 1
    assert server.recv(10) == b""
    server.sendall(b"an answer")  # of an application that worked meanwhile
    assert client.recv(100) == b"an answer"


def test_each_byte_gives_it_time_again(stalls, clock, pair):
    server, client = pair
    for _ in range(5):
        stalls.end([server])
        client.sendall(b".")
        assert server.recv(10) == b"."
        clock.now += STALL_S
        assert stalls.end([server]) == 0


def test_what_the_application_has_not_read_yet_is_not_the_client_s_fault(stalls, clock, pair):
    server, client = pair
    client.sendall(b"a body")
    wait_until(lambda: _traffic(server).unread)
    stalls.end([server])
    clock.now = STALL_S
    assert stalls.end([server]) == 0
    assert server.recv(10) == b"a body"


def test_a_client_that_takes_nothing_is_cut_off(stalls, clock, pair):
    server, _ = pair
    fill(server)
    stalls.end([server])
    clock.now = STALL_S
    assert stalls.end([server]) == 1
    with pytest.raises(BrokenPipeError):
        server.sendall(b"more")


def test_one_that_takes_something_is_not(stalls, clock, pair):
    server, client = pair
    fill(server)
    stalls.end([server])
    before = _traffic(server).moved
    while _traffic(server).moved == before:
        assert client.recv(65536)
    clock.now = STALL_S
    assert stalls.end([server]) == 0


def test_sockets_that_tell_nothing_are_left_alone(stalls, clock, pair):
    closed = socket.socket()
    closed.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stalls.end([ours, closed])
        clock.now = 10 * STALL_S
        assert stalls.end([ours, closed]) == 0


def test_a_socket_is_watched_for_as_long_as_it_is_named(stalls, clock, pair):
    server, _ = pair
    stalls.end([server])
    stalls.end([])
    clock.now = STALL_S
    assert stalls.end([server]) == 0


def test_a_kernel_that_tells_less_is_one_that_tells_nothing(stalls, clock, pair, monkeypatch):
    server, _ = pair
    monkeypatch.setattr("wsthreads.servers.stalled_clients._TCP_INFO", struct.Struct("=4096xQQ"))
    stalls.end([server])
    clock.now = STALL_S
    assert stalls.end([server]) == 0
