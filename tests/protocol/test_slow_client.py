"""No client can make another wait, nor fill the memory."""

import queue
import re
import selectors
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from tests.programs import DEADLINE_S, Program, wait_until
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
                wanted, slowest = dict.fromkeys(some, 0), 0
                for client in some:
                    selector.register(client.sock, selectors.EVENT_READ, client)
                while wanted:
                    for key, _ in selector.select(DEADLINE_S):
                        client = key.data
                        client.buffer += client.sock.recv(1 << 18)
                        frames, client.buffer = parse_frames(client.buffer)
                        for opcode, payload in frames:
                            assert opcode == TEXT, (opcode, payload)
                            assert int(payload[:8]) == wanted[client], "lost, doubled or out of order"
                            wanted[client] += 1
                        if wanted[client] == total:
                            selector.unregister(client.sock)
                            del wanted[client]
                    before, slowest = slowest, min(wanted.values(), default=total)
                    if slowest > before:  # the one who is furthest behind sets the pace
                        tokens.release(slowest - before)
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
        wait_until(lambda: room.members() == count - 1, "the one that is closed has left the room")
        wait_until(lambda: app.metrics.snapshot().get("slow_sessions_closed") == 1, "it is counted")
        assert most < 100 * 2**20, f"{most >> 20} MiB more in memory"


def _rss():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


@pytest.mark.quiet  # thirty bad clients leave a busy machine nothing
def test_among_clients_that_never_read_are_slow_or_flood_the_others_lose_nothing():
    """Those of the benchmark's bad-peers, fewer of them. Who is closed comes back and goes on."""
    good, bad, total = 10, 10, 150

    class Joins(Recorder):
        def on_open(self, session):
            session.room("crowd").join()
            if session.get_parameter("good"):
                super().on_open(session)

        def on_message(self, session, message):
            session.send(message)

    handler = Joins()
    settings = {"max_outbox_bytes": 65536, "send_timeout_s": 0.5, "close_timeout_s": 0.2, "max_messages_per_s": 20}
    with endpoint(handler, **settings) as (app, port), ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port, "/ws/test?good=1")) for _ in range(good)]
        for _ in clients:
            handler.session()
        room, filler = app.endpoint("/ws/test").room("crowd"), "x" * 50_000

        def crowd(*counts):
            command = [sys.executable, "-m", "tests.bench.badpeers", str(port), "/ws/test", *map(str, counts)]
            return stack.enter_context(Program(command, stdin=subprocess.PIPE))

        crowds = [crowd(bad, bad, 0)]
        wait_until(lambda: room.members() == good + 2 * bad, "the join of those that read little")
        crowds.append(crowd(0, 0, bad))
        crowds[1].wait_for(r"^\n")  # all of them have come
        for n in range(total):
            room.broadcast(f"{n:08}{filler}")
            for client in clients:
                assert client.receive() == (TEXT, b"%08d" % n + filler.encode()), "lost, doubled or out of order"
        for counter in ("past_max_messages_per_s", "slow_sessions_closed"):
            wait_until(lambda counter=counter: app.metrics.snapshot().get(counter, 0) >= bad, counter)
        sessions = app.endpoint("/ws/test").sessions()
        assert sum(session.is_open() for session in sessions if session.get_parameter("good")) == good
        for program in crowds:
            program.process.stdin.close()
            assert program.wait() == 0


FLOODS = {
    ".js": "export function onMessage(session) { for (let i = 0; i < 400; i++) session.send('x'.repeat(65536)); }\n",
    ".py": "def on_message(session, message):\n    for _ in range(400):\n        session.send('x' * 65536)\n",
}


@pytest.mark.parametrize("suffix", FLOODS)
@pytest.mark.parametrize("server", ["run", "gthread", "wsthreads.gunicorn.ThreadWorker"])
def test_a_client_that_is_closed_as_too_slow_is_one_line_of_the_log(tmp_path, suffix, server):
    (tmp_path / f"flood{suffix}").write_text(FLOODS[suffix])
    if server == "run":
        command = [sys.executable, "-m", "wsthreads", "run", f"flood{suffix}", "--port", "0"]
        command += ["--send-timeout-s", "0.5", "--close-timeout-s", "0.5"]
    else:
        app = f"wsthreads:create_app('flood{suffix}', send_timeout_s=0.5, close_timeout_s=0.5)"
        command = [sys.executable, "-m", "gunicorn", "-k", server, "--threads", "8", "-b", "127.0.0.1:0", app]
    with Program(command, cwd=tmp_path) as program:
        port = int(program.wait_for(r"(?i)^.*listening (?:on|at:) http://127\.0\.0\.1:(\d+)")[1])
        with RawClient(port, "/ws/flood", receive_buffer=4096) as client:
            client.text("go")
            lines = r"(?m)^.*session (\S+) closed on /ws/flood after .*1013 too slow: .*$"
            program.wait_for(lines)
        assert program.end() == 0
        assert len(re.findall(lines, program.log)) == 1
        assert len(re.findall("too slow", program.log)) == 1
