"""No client can make another wait, nor fill the memory."""

import queue
import selectors
import threading
from contextlib import ExitStack

from tests.programs import DEADLINE_S
from tests.wire import TEXT, RawClient, Recorder, endpoint, parse_frames, run_all


def test_in_a_room_of_50_the_one_that_never_reads_is_closed_and_the_others_get_all_in_order():
    count, total, size = 50, 5_000, 2048

    class Joins(Recorder):
        def on_open(self, session):
            session.room("lobby").join()
            super().on_open(session)

    handler = Joins()
    with endpoint(handler, close_timeout_s=1) as (app, port), ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port)) for _ in range(count - 1)]
        stack.enter_context(RawClient(port, receive_buffer=4096))
        for _ in range(count):
            handler.session()
        room, filler = app.endpoint("/ws/test").room("lobby"), "x" * (size - 8)
        before, most = _rss(), 0
        read, tokens = queue.Queue(), threading.Semaphore(200)

        def reader(some):
            with selectors.DefaultSelector() as selector:
                wanted = dict.fromkeys(some, 0)
                for client in some:
                    selector.register(client.sock, selectors.EVENT_READ, client)
                while wanted:
                    for key, _ in selector.select(DEADLINE_S):
                        client = key.data
                        client.buffer += client.sock.recv(1 << 18)
                        frames, client.buffer = parse_frames(client.buffer)
                        for opcode, payload in frames:
                            assert opcode == TEXT
                            assert int(payload[:8]) == wanted[client], "lost, doubled or out of order"
                            wanted[client] += 1
                            if client is clients[0]:
                                tokens.release()
                        if wanted[client] == total:
                            selector.unregister(client.sock)
                            del wanted[client]
            read.put(len(some))

        def broadcast():
            nonlocal most
            for n in range(total):
                assert tokens.acquire(timeout=DEADLINE_S), f"a pause after {n}"
                room.broadcast(f"{n:08}{filler}")
                if n % 500 == 0:
                    most = max(most, _rss() - before)

        run_all(broadcast, lambda: reader(clients))
        code, reason = handler.close()
        assert code == 1013
        assert reason.startswith("too slow: ")
        assert app.metrics.snapshot()["slow_sessions_closed"] == 1
        assert room.members() == count - 1
        assert most < 100 * 2**20, f"{most >> 20} MiB more in memory"


def _rss():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
