"""What ends the wait of a client's thread."""

from __future__ import annotations

import socket
import threading

from tests.programs import DEADLINE_S
from wsthreads.client.waiter import Waiter


def test_a_wake_that_comes_while_the_last_one_is_taken_loses_none_that_follow(monkeypatch):
    waiter = Waiter()
    receive = socket.socket.recv

    def overtaken(sock, size):
        waiter.wake()  # as another thread, at the worst moment
        return receive(sock, size)

    waiter.wake()
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "recv", overtaken, raising=False)
        assert waiter.wait(None, 0, DEADLINE_S) == 0
    waiter.wait(None, 0, 0)  # takes what is left
    waiter.wake()
    waiting = threading.Thread(target=waiter.wait, args=(None, 0, None), daemon=True)
    waiting.start()
    waiting.join(DEADLINE_S)
    assert not waiting.is_alive()
    waiter.close()
