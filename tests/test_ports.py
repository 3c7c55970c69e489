"""The ports that the tests give to servers."""

import socket
import subprocess
import sys

import pytest

from tests import ports
from tests.ports import free_port
from tests.programs import ROOT

TAKE = "from tests.ports import free_port; print(*(free_port() for _ in range(200)), flush=True); input()"


def test_a_port_is_given_to_one_process_only_for_as_long_as_that_runs():
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        for _ in range(3)
    ]
    ports = [int(port) for process in processes for port in process.stdout.readline().split()]
    for process in processes:
        process.communicate("\n")
    assert len(set(ports)) == 600


def test_the_system_gives_no_such_port_to_a_client():
    """Else a client that tries to reach a server that restarts there may find itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(100):
            with socket.create_connection(server.getsockname()) as client:
                assert not 10_000 <= client.getsockname()[1] < 20_000
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listener:
        assert listener.getsockname()[1] == port


def test_browsers_take_every_port(monkeypatch):
    """The browsers' list of bad ports has one in the range: https://fetch.spec.whatwg.org/#port-blocking."""
    monkeypatch.setattr(ports, "FIRST", 10_080)
    monkeypatch.setattr(ports, "END", 10_081)
    with pytest.raises(OSError, match="no port from 10080 to 10081 is free"):
        free_port()
