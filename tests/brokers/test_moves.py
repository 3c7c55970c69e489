"""Sessions of real servers that go on in another process, as handlers and clients see it."""

import json
import threading
import time
from contextlib import ExitStack
from urllib.request import urlopen

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.redis_server import RedisServer
from tests.speakers import Speaker
from tests.wire import endpoint, run_all
from wsthreads import SessionMoved
from wsthreads.brokers.handover import BUSY, UNKNOWN, Handover
from wsthreads.protocol import envelope
from wsthreads.protocol.encoding import PLAIN
from wsthreads.protocol.handshake import Request
from wsthreads.sessions.moves import Arriving, Claim
from wsthreads.sessions.secrets import digest
from wsthreads.sessions.suspensions import Suspensions

SUSPEND, RESUME = "suspend", "resume"


class Story:
    """Keeps what happens to its sessions, in order, and echoes. A message may be an order."""

    def __init__(self):
        self.calls, self.sessions, self.seen = [], {}, []
        self.waits, self.goes_on = threading.Event(), threading.Event()

    def on_handshake(self, request):
        if at := request.get_parameter("expires_at"):
            request.set_expiry(float(at))

    def on_open(self, session):
        self.sessions[session.id] = session
        session.room("lobby").join(presence="here")
        self.calls.append("open")

    def on_message(self, session, message):
        self.calls.append(message)
        order, _, what = message.partition(" ")
        if order == "set":
            session.attributes.update(json.loads(what))
        elif order == "lock":
            session.attributes["lock"] = threading.Lock()
        elif order == "ask":
            try:
                session.request("who?", timeout=DEADLINE_S)
            except SessionMoved as error:
                self.calls.append(f"{error} {session.is_open()}")
        elif order == "wait":
            self.waits.set()
            assert self.goes_on.wait(DEADLINE_S)
        session.send(f"echo {message}")

    def on_request(self, session, message):
        if message.startswith("broadcast"):
            session.room("lobby").broadcast(message)
        return f"reply to {message}"

    def on_suspend(self, session):
        self.calls.append(SUSPEND)

    def on_resume(self, session):
        self.sessions[session.id] = session
        self.calls.append(RESUME)

    def on_presence(self, room, changes):
        self.seen += [(what, person.key) for what in ("joined", "left") for person in getattr(changes, what)]

    def on_close(self, session, code, reason):
        if session.id in [person.key for person in session.endpoint.room("lobby").presence()]:
            self.seen.append(("closed", session.id))
        self.calls.append(("close", code, reason))


class Process:
    """An app that has nothing in common with others but Redis."""

    def __init__(self, redis, prefix, stack, **settings):
        from wsthreads.brokers.redis import RedisBroker

        self.story = Story()
        options = {"resume_s": 60, "close_timeout_s": 5, **settings}
        broker = RedisBroker(redis.url, prefix=prefix)
        self.app, self.port = stack.enter_context(endpoint(self.story, broker=broker, **options))
        self.endpoint = self.app.endpoint("/ws/test")

    @property
    def calls(self):
        return self.story.calls

    def session(self):
        """Its first session, once it is open."""
        wait_until(lambda: self.calls, "an open session")
        return next(iter(self.story.sessions.values()))

    def wait_for(self, *calls):
        wait_until(lambda: self.calls == list(calls), f"{list(calls)}, not {self.calls}")


@pytest.fixture(scope="module")
def redis():
    with RedisServer() as server:
        yield server


@pytest.fixture
def processes(redis, request):
    """Makes so many processes."""
    with ExitStack() as stack:
        redis.client.flushall()
        yield lambda count=2, **settings: [Process(redis, "test", stack, **settings) for _ in range(count)]


def move(client, process, **options):
    return client.go_to(process.port, **options).greet()


def test_a_client_that_comes_back_to_another_process_goes_on_with_its_session(processes):
    old, new = processes()
    with Speaker(old.port).begin() as client:
        client.send('set {"name": "ann", "n": [1, null]}')
        assert client.next().startswith("echo set")
        session = old.session()
        client.lose()
        wait_until(lambda: SUSPEND in old.calls, "the suspension")
        assert session.send("to the session")
        old.endpoint.room("lobby").broadcast("to all")
        welcome = move(client, new)
        assert welcome.resumed
        assert welcome.received == client.sent
        assert client.all(2) == ["to the session", "to all"]
        client.send("hello")
        assert client.next() == "echo hello"
        moved = wait_until(lambda: new.story.sessions.get(session.id), "the session in the other process")
        assert moved.attributes == {"name": "ann", "n": [1, None]}
        assert moved.rooms() == ["lobby"]
        assert moved.opened_at == session.opened_at
        assert not session.is_open()
        assert not session.send("too late")
        new.wait_for(RESUME, "hello")
        assert "open" not in new.calls
        assert len(old.endpoint.sessions()) == 0
        assert len(new.endpoint.sessions()) == 1
        new.endpoint.room("lobby").broadcast("once")
        assert client.next() == "once"
        client.leave()
        new.wait_for(RESUME, "hello", ("close", 1000, ""))
    assert SUSPEND in old.calls


def test_an_old_connection_that_seems_alive_is_cut_off_and_the_session_goes_on(processes):
    old, new = processes()
    with Speaker(old.port).begin() as client, Speaker(new.port) as other:
        client.send("one")
        assert client.next() == "echo one"
        other.token, other.received, other.sent = client.token, client.received, client.sent
        assert move(other, new).resumed
        other.send("two")
        assert other.next() == "echo two"
        new.wait_for(RESUME, "two")
        old.wait_for("open", "one", SUSPEND)


@pytest.mark.parametrize(("received", "told"), [(0, "counts"), (3, 1002), (2**53 - 1, 1002)])
def test_a_count_that_cannot_be_true_does_not_touch_a_connection_in_another_process(processes, received, told):
    old, new = processes()
    with Speaker(old.port).begin() as client, Speaker(new.port) as other:
        client.send("one")
        client.send("two")
        assert client.all(2) == ["echo one", "echo two"]
        assert client.heartbeat() == 2
        other.go_to(new.port, client.token, received)
        assert told == (other.greet().why if received == 0 else other.is_refused()[0])
        client.send("three")
        assert client.next() == "echo three"
        old.wait_for("open", "one", "two", "three")
        other.lose()
        other.token, other.received, other.sent = client.token, client.received, client.sent
        assert move(other, new).resumed


def test_a_client_goes_on_in_a_process_whose_places_are_all_taken(processes):
    old, new = processes(max_sessions=1)
    with Speaker(old.port).begin() as client, Speaker(new.port) as other, Speaker(new.port).begin():
        client.send("one")
        assert client.next() == "echo one"
        other.token, other.received, other.sent = client.token, client.received, client.sent
        assert move(other, new).resumed
        other.send("two")
        assert other.next() == "echo two"
        assert len(new.endpoint.sessions()) == 2


def test_a_client_moves_to_and_fro_while_others_speak_and_gets_everything_once(processes):
    old, new = processes()
    stopping, counts = threading.Event(), [0, 0]

    def speak(n, process):
        room = process.endpoint.room("lobby")
        while not stopping.wait(0.002):
            room.broadcast(f"{n} {counts[n]}")
            counts[n] += 1

    with Speaker(old.port).begin() as client:
        speakers = [threading.Thread(target=speak, args=each, daemon=True) for each in enumerate((old, new))]
        for speaker in speakers:
            speaker.start()
        heard = []
        for number in range(12):
            client.send(f"{number}")
            heard += client.all(5)
            client.lose()
            welcome = move(client, (new, old)[number % 2])
            assert welcome.resumed
            if welcome.received < client.sent:  # it was lost with the connection
                client.put(f"{number}")
        stopping.set()
        for speaker in speakers:
            speaker.join(DEADLINE_S)
        client.send("last")
        while heard[-1] != "echo last":
            heard.append(client.next())
        for n in range(2):  # the last ones may still be on their way
            while f"{n} {counts[n] - 1}" not in heard:
                heard.append(client.next())
            numbers = [int(text.split()[1]) for text in heard if text.startswith(f"{n} ")]
            assert numbers == list(range(numbers[0], counts[n]))
        assert [text for text in heard if text.startswith("echo")] == [f"echo {n}" for n in [*range(12), "last"]]
        for process in (old, new):
            assert not [call for call in process.calls if call[0] == "close"]
        assert (old.calls + new.calls).count("open") == 1


def test_at_a_shutdown_sessions_go_on_in_another_process(processes):
    old, new = processes()
    with Speaker(old.port).begin() as connected, Speaker(old.port).begin() as away:
        connected.send("one")
        assert connected.next() == "echo one"
        away.lose()
        wait_until(lambda: SUSPEND in old.calls, "the suspension")
        ending = threading.Thread(target=old.app.shutdown, args=(DEADLINE_S, 1012, "restart"))
        ending.start()
        assert connected.receive_close() == (1012, "restart")
        assert move(connected, new).resumed
        ending.join(DEADLINE_S)
        assert not ending.is_alive()
        new.endpoint.room("lobby").broadcast("to all")
        assert connected.next() == "to all"
        assert move(away, new).resumed
        assert away.next() == "to all"
        assert not [call for call in old.calls + new.calls if call[0] == "close"]
        wait_until(lambda: new.calls.count(RESUME) == 2, "both resumed")
        assert old.calls.count(SUSPEND) == 2


def test_at_a_shutdown_a_redis_that_hangs_for_seconds_is_waited_for(processes, impatient):
    with RedisServer() as own, ExitStack() as stack:
        old, new = (Process(own, "test", stack) for _ in range(2))
        with Speaker(old.port).begin() as client:
            client.send("one")
            assert client.next() == "echo one"
            impatient()
            own.client.execute_command("CLIENT", "PAUSE", 2500, "ALL")
            old.app.shutdown(DEADLINE_S, 1012, "restart")
            assert client.receive_close() == (1012, "restart")
            assert move(client, new).resumed
            assert old.calls == ["open", "one", SUSPEND]


def test_a_session_tries_to_leave_for_as_long_as_the_shutdown_may_take(processes, monkeypatch):
    (old, new), late_s = processes(), [0.0]
    monkeypatch.setattr("wsthreads.sessions.service.monotonic", lambda: time.monotonic() + late_s[0])
    export = old.endpoint.handover.export

    def export_late(session_id):
        if not late_s[0]:
            late_s[0] = 12.0
            return False
        return export(session_id)

    monkeypatch.setattr(old.endpoint.handover, "export", export_late)
    with Speaker(old.port).begin() as client:
        client.send("one")
        assert client.next() == "echo one"
        ending = threading.Thread(target=old.app.shutdown, args=(6 * DEADLINE_S, 1012, "restart"))
        ending.start()
        assert client.receive_close() == (1012, "restart")
        assert move(client, new).resumed
        ending.join(DEADLINE_S)
        assert not ending.is_alive()
        assert old.calls == ["open", "one", SUSPEND]


@pytest.mark.parametrize("on_close_s", [0, 3])
def test_a_session_that_does_not_leave_a_process_is_in_the_log_once(caplog, monkeypatch, impatient, on_close_s):
    close = Story.on_close
    monkeypatch.setattr(Story, "on_close", lambda *arguments: time.sleep(on_close_s) or close(*arguments))
    with RedisServer() as own, ExitStack() as stack:
        old = Process(own, "test", stack)
        client = stack.enter_context(Speaker(old.port).begin())
        client.send("one")
        assert client.next() == "echo one", "its calls have ended, which may ask Redis"
        impatient(wait_s=0.3)
        own.client.execute_command("CLIENT", "PAUSE", 6000, "ALL")
        old.app.shutdown(2.5, 1012, "restart")
    text = "1 session of /ws/test could not move to another process: Redis does not answer"
    assert caplog.text.count(text) == 1


def test_what_the_client_sends_while_the_server_shuts_down_is_handled_once(processes):
    old, new = processes()
    with Speaker(old.port).begin() as client:
        sent = []

        def talk():
            for number in range(10_000):
                try:
                    client.send(f"{number}")
                except OSError:
                    client.sent -= 0
                    return
                sent.append(f"{number}")

        talker = threading.Thread(target=talk, daemon=True)
        talker.start()
        wait_until(lambda: len(old.calls) > 20, "the first messages")
        old.app.shutdown(DEADLINE_S, 1012, "restart")
        client.wire.sock.close()
        talker.join(DEADLINE_S)
        welcome = move(client, new)
        assert welcome.resumed
        for text in sent[welcome.received :]:
            client.put(text)
        client.put("end")
        wait_until(lambda: new.calls and new.calls[-1] == "end", "the last message")
        handled = [call for call in old.calls + new.calls if call not in ("open", SUSPEND, RESUME, "end")]
        assert handled == sent


@pytest.fixture
def overdue_soon(monkeypatch):
    """A session is overdue at once when it has left its process. In the process, it waits for its client."""
    monkeypatch.setattr("wsthreads.brokers.handover.OVERDUE_LOOK_S", 0.05)
    monkeypatch.setattr(Suspensions, "left_s", lambda *_: 0.001)


@pytest.mark.usefixtures("overdue_soon")
@pytest.mark.parametrize("first", ["a session", "a look at its health"])
def test_without_a_client_that_comes_back_after_a_shutdown_on_close_is_called_once_elsewhere(processes, first):
    old, new = processes(serve_health=True)
    with Speaker(old.port).begin() as client, ExitStack() as stack:
        if first == "a session":
            stack.enter_context(Speaker(new.port).begin())
            new.wait_for("open")
        else:
            urlopen(f"http://127.0.0.1:{new.port}/healthz", timeout=DEADLINE_S).close()
        client.lose()
        old.app.shutdown(DEADLINE_S, 1012, "restart")
        wait_until(lambda: [call for call in new.calls if call[0] == "close"], "on_close")
        assert [call for call in new.calls if call != "open"] == [("close", 1006, "not back in time")]
        assert not [call for call in old.calls if call[0] == "close"]


def test_a_session_with_attributes_that_are_not_json_ends_and_its_client_is_told(processes):
    old, new = processes()
    with Speaker(old.port).begin() as client:
        client.send("lock")
        assert client.next() == "echo lock"
        client.lose()
        wait_until(lambda: SUSPEND in old.calls, "the suspension")
        welcome = move(client, new)
        assert (welcome.resumed, welcome.why) == (False, "elsewhere")
        wait_until(lambda: old.calls[-1] == ("close", 1006, "cannot move to another process"), "on_close")
        new.wait_for("open")


def test_at_a_shutdown_a_session_that_cannot_move_ends_and_its_client_is_told_by_the_next_process(processes):
    old, new = processes()
    with Speaker(old.port).begin() as client:
        client.send("lock")
        assert client.next() == "echo lock"
        old.app.shutdown(DEADLINE_S, 1012, "restart")
        assert [call[1] for call in old.calls if call[0] == "close"] == [1006]
        welcome = move(client, new)
        assert (welcome.resumed, welcome.why) == (False, "elsewhere")
        assert new.app.metrics.snapshot()["resumes_refused_elsewhere"] == 1


@pytest.mark.parametrize("when", ["before the shutdown", "while it lasts"])
def test_the_next_process_tells_a_client_that_its_session_was_closed(processes, when):
    old, new = processes()
    with Speaker(old.port).begin() as client:
        session = old.session()
        if when == "before the shutdown":
            client.lose()
            wait_until(lambda: SUSPEND in old.calls, "the suspension")
            session.close(4001, "go")
            wait_until(lambda: old.calls[-1] == ("close", 4001, "go"), "on_close")
        else:
            client.send("wait")
            assert old.story.waits.wait(DEADLINE_S)
            old.app._shutdown.begin(DEADLINE_S, 1012, "restart")
            assert client.receive_close() == (1012, "restart")
            session.close(4001, "go")
            client.lose()
            old.story.goes_on.set()
        assert old.app.shutdown(DEADLINE_S, 1012, "restart") == 0
        assert old.calls[-1] == ("close", 4001, "go")
        assert client.go_to(new.port).is_refused() == (4001, "go")
        stolen = Speaker(new.port).go_to(new.port, client.token.partition(".")[0] + "." + "x" * 22)
        assert stolen.greet().why == "unknown"
        stolen.leave()
        assert "resume" not in new.calls


@pytest.mark.parametrize("when", ["before it moves", "while it is stored"])
def test_a_kick_reaches_the_client_wherever_it_comes_back(processes, when):
    old, new = processes()
    with Speaker(old.port).begin() as client:
        session = old.session()
        client.lose()
        wait_until(lambda: SUSPEND in old.calls, "the suspension")
        if when == "before it moves":
            session.close(4001, "go")
            wait_until(lambda: old.calls[-1] == ("close", 4001, "go"), "on_close")
        else:
            assert old.endpoint.handover.export(session.id)
            new.endpoint.session(session.id).close(4001, "go")
        assert client.go_to(new.port).is_refused() == (4001, "go")
        wait_until(lambda: ("close", 4001, "go") in old.calls + new.calls, "on_close")
        assert (old.calls + new.calls).count(("close", 4001, "go")) == 1
        assert "open" not in new.calls


def test_while_a_call_takes_long_the_client_is_to_come_again_and_loses_nothing(processes, monkeypatch):
    monkeypatch.setattr("wsthreads.brokers.exports.DEPART_S", 0.05)
    monkeypatch.setattr("wsthreads.brokers.handover.FETCH_S", 0.3)
    old, new = processes()
    with Speaker(old.port).begin() as client:
        client.send("wait")
        client.send("behind")
        assert old.story.waits.wait(DEADLINE_S)
        client.lose()
        client.port = new.port
        client.open().hello(client.token)
        code, _ = client.is_refused()
        assert code == 1013
        assert not new.calls
        old.story.goes_on.set()
        wait_until(lambda: SUSPEND in old.calls, "the suspension")
        assert move(client, new).resumed
        for message in ("wait", "behind")[client.welcome.received :]:
            client.put(message)
        assert client.all(2) == ["echo wait", "echo behind"]
        handled = [call for call in old.calls + new.calls if call in ("wait", "behind")]
        assert handled == ["wait", "behind"]


@pytest.mark.parametrize("how", ["comes back elsewhere", "shutdown"])
def test_a_handler_that_waits_for_a_reply_does_not_keep_its_session_from_moving(processes, how):
    old, new = processes()
    with Speaker(old.port).begin() as client:
        client.send("ask")
        assert client.next() == envelope.Request(1, "who?")
        if how == "shutdown":
            old.app.shutdown(DEADLINE_S, 1012, "restart")
        client.lose()
        assert move(client, new).resumed
        assert client.next() == "echo ask"
        moved = "the session has moved to another process, so no reply will come: ask again in on_resume"
        old.wait_for("open", "ask", f"{moved} (in a script, onResume) True", SUSPEND)
        with pytest.raises(SessionMoved):
            next(iter(old.story.sessions.values())).request("who?")
        client.put(envelope.reply(1, "late"))  # nobody waits for it any more
        client.put("two")
        assert client.next() == "echo two"


def test_a_process_that_shuts_down_takes_no_session(processes):
    old, middle, new = processes(3)
    with Speaker(middle.port).begin() as another, Speaker(old.port).begin() as client:
        old.wait_for("open")
        middle.app._shutdown.begin(DEADLINE_S, 1012, "restart")
        claim = Claim(client.token.partition(".")[0], digest(client.token.partition(".")[2]), 0, None, None, PLAIN)
        assert middle.endpoint.handover.fetch(claim, Request({})) == BUSY
        assert old.calls == ["open"]
        assert another.receive_close() == (1012, "restart")
        assert move(another, new).resumed


def test_a_session_that_arrives_while_its_process_shuts_down_goes_on_in_the_next_one(processes, monkeypatch):
    old, middle, new = processes(3)
    settle = Arriving.settle

    def settle_at_the_end(self, *arguments):
        if self._service.handover is middle.endpoint.handover:
            middle.app._shutdown.begin(DEADLINE_S, 1012, "restart")
        settle(self, *arguments)

    monkeypatch.setattr(Arriving, "settle", settle_at_the_end)
    with Speaker(old.port).begin() as client:
        client.send("one")
        assert client.next() == "echo one"
        client.lose()
        client.port = middle.port
        client.open().hello(client.token)
        assert client.is_refused()[0] in (1012, 1013)
        client.lose()
        assert middle.app.shutdown(DEADLINE_S, 1012, "restart") == 0
        assert move(client, new).resumed
        assert not [call for call in old.calls + middle.calls + new.calls if call[0] == "close"]


@pytest.fixture
def late_arrival(monkeypatch):
    """Two events: a session has arrived but for its last step, and the test lets that happen."""
    arrives, goes_on, settle = threading.Event(), threading.Event(), Arriving.settle

    def settle_late(self, *arguments):
        arrives.set()
        assert goes_on.wait(DEADLINE_S)
        settle(self, *arguments)

    monkeypatch.setattr(Arriving, "settle", settle_late)
    return arrives, goes_on


@pytest.mark.parametrize("where", [0, 1])
def test_while_a_session_arrives_another_connection_of_its_client_is_to_come_again(
    processes, monkeypatch, late_arrival, where
):
    monkeypatch.setattr(Handover.fetch, "__defaults__", (3.0,))
    both = old, new = processes()
    arrives, goes_on = late_arrival
    with Speaker(old.port).begin() as client, Speaker(both[where].port) as other:
        other.token = client.token
        client.lose()
        wait_until(lambda: SUSPEND in old.calls, "the suspension")
        moving = threading.Thread(target=move, args=(client, new), daemon=True)
        moving.start()
        assert arrives.wait(DEADLINE_S)
        other.open().hello(other.token)
        code, _ = other.is_refused()
        goes_on.set()
        moving.join(DEADLINE_S)
        assert code == 1013
        assert client.welcome.resumed


def test_while_a_session_arrives_a_client_with_a_later_secret_is_to_come_again(processes, late_arrival):
    """The former hello may be late: its session has gone on elsewhere, and has had other secrets there."""
    old, new = processes()
    arrives, goes_on = late_arrival
    with Speaker(old.port).begin() as client, Speaker(new.port) as other:
        client.lose()
        wait_until(lambda: SUSPEND in old.calls, "the suspension")
        moving = threading.Thread(target=move, args=(client, new), daemon=True)
        moving.start()
        assert arrives.wait(DEADLINE_S)
        other.open().hello(client.token.partition(".")[0] + ".another")
        code, _ = other.is_refused()
        goes_on.set()
        moving.join(DEADLINE_S)
        assert code == 1013
        new.wait_for(RESUME)


def test_who_is_gone_before_its_session_was_found_gets_no_fresh_one(processes, monkeypatch):
    (process,) = processes(1)
    looks, goes_on = threading.Event(), threading.Event()

    def fetch(*arguments):
        looks.set()
        assert goes_on.wait(DEADLINE_S)
        return UNKNOWN

    monkeypatch.setattr(Handover, "fetch", fetch)
    with Speaker(process.port) as client, Speaker(process.port) as stays:
        client.open().hello("somebody.secret")
        assert looks.wait(DEADLINE_S)
        client.lose()
        stays.open().hello("somebody.secret")
        goes_on.set()
        assert stays.greet().why == UNKNOWN
        wait_until(lambda: len(process.endpoint.connections()) == 1, "the end of the other's connection")
        process.wait_for("open")


def test_requests_go_on_in_the_other_process(processes):
    old, new = processes()
    with Speaker(old.port).begin() as client:
        client.ask(1, "a")
        assert client.next() == envelope.Reply(1, "reply to a")
        client.lose()
        assert move(client, new).resumed
        client.ask(2, "b")
        assert client.next() == envelope.Reply(2, "reply to b")


def test_a_reply_does_not_overtake_a_broadcast_of_the_same_call(processes):
    (process,) = processes(1)
    with Speaker(process.port).begin() as client:
        for number in range(1, 30):
            client.ask(number, f"broadcast {number}")
            assert client.all(2) == [f"broadcast {number}", envelope.Reply(number, f"reply to broadcast {number}")]


def test_the_same_secrets_are_valid_in_the_other_process_and_no_others(processes):
    old, new = processes()
    with Speaker(old.port).begin() as client:
        first = client.token
        client.lose()
        assert move(client, new).resumed
        client.heartbeat()  # it has shown that it has the second one
        client.lose()
        stolen = Speaker(old.port)
        welcome = stolen.go_to(old.port, first, 0).greet()
        assert (welcome.resumed, welcome.why) == (False, "unknown")
        stolen.wire.sock.close()
        assert move(client, old).resumed


@pytest.mark.parametrize("is_fresh", [True, False])
def test_a_session_that_expires_on_its_way_goes_on_with_a_fresh_token(processes, is_fresh):
    old, new = processes()
    with Speaker(old.port, f"/ws/test?expires_at={time.time() + 60}").begin() as client:
        session = old.session()
        client.lose()
        wait_until(lambda: SUSPEND in old.calls, "the suspension")
        expires_at = time.time() + 0.5
        session.set_expiry(expires_at)  # while it waits, it does not expire, only ends if that is over already
        assert old.endpoint.handover.export(session.id)
        wait_until(lambda: time.time() > expires_at, "the time of the token")
        client.path = f"/ws/test?expires_at={expires_at + 60}" if is_fresh else "/ws/test"
        client.go_to(new.port)
        if is_fresh:
            assert client.greet().resumed
        else:
            assert client.is_refused() == (3000, "expired")
            new.wait_for(("close", 3000, "expired"))


def test_presence_stays_and_nobody_is_told_of_a_leave(processes):
    old, new = processes()
    with Speaker(old.port).begin() as client, Speaker(new.port).begin():
        room = new.endpoint.room("lobby")
        wait_until(lambda: len(room.presence()) == 2, "both are there")
        since = {each.since for each in room.presence()}
        client.lose()
        assert move(client, new).resumed
        assert len(room.presence()) == 2
        assert {each.since for each in room.presence()} == since


@pytest.mark.usefixtures("overdue_soon")
def test_who_does_not_come_back_after_a_shutdown_leaves_once_when_on_close_has_returned(processes):
    old, new = processes(presence_grace_s=3600, presence_interval_s=0.01)
    with Speaker(old.port).begin() as client, Speaker(new.port).begin():
        room, who = new.endpoint.room("lobby"), old.session().id
        wait_until(lambda: len(room.presence()) == 2, "both are there")
        new.story.seen.clear()
        client.lose()
        old.app.shutdown(DEADLINE_S, 1012, "restart")
        wait_until(lambda: ("left", who) in new.story.seen, "the leave")
        assert len(room.presence()) == 1
        assert [what for what, key in new.story.seen if key == who] == ["closed", "left"]


def sessions_in(process):
    """By key: how many sessions of a person are there."""
    return {each.key: each.sessions for each in process.endpoint.room("lobby").presence()}


def test_a_session_that_waits_for_its_client_counts_in_presence_wherever_it_waits(processes):
    old, new = processes()
    with Speaker(old.port).begin() as client, Speaker(new.port).begin():
        for each in (old, new):
            wait_until(lambda each=each: list(sessions_in(each).values()) == [1, 1], "both are there")
        client.lose()
        wait_until(lambda: SUSPEND in old.calls, "the suspension")
        assert [list(sessions_in(each).values()) for each in (old, new)] == [[1, 1]] * 2
        old.app.shutdown(DEADLINE_S, 1012, "restart")
        wait_until(lambda: new.endpoint.room("lobby").members() == 2, "it is in Redis")
        assert list(sessions_in(new).values()) == [1, 1]


def test_nothing_is_left_of_a_presence_whose_process_has_ended_when_its_session_ends_elsewhere(processes, redis):
    old, new = processes()
    with Speaker(old.port).begin() as client, Speaker(new.port).begin():
        wait_until(lambda: len(sessions_in(new)) == 2, "both are there")
        gone = old.session().id
        client.lose()
        old.app.shutdown(DEADLINE_S, 1012, "restart")
        assert move(client, new).resumed
        client.leave()

        def fields():
            return [field for key in redis.client.scan_iter("*presence*") for field in redis.client.hkeys(key)]

        wait_until(lambda: not [each for each in fields() if each.endswith(f" {gone}".encode())], "nothing is left")


def test_many_clients_come_back_at_once_to_another_process(processes):
    old, new = processes()
    with ExitStack() as stack:
        clients = [stack.enter_context(Speaker(old.port).begin()) for _ in range(30)]
        for client in clients:
            client.lose()
        run_all(*[lambda client=client: move(client, new) for client in clients])
        assert all(client.welcome.resumed for client in clients)
        new.endpoint.room("lobby").broadcast("to all")
        assert [client.next() for client in clients] == ["to all"] * 30
        assert not [call for call in old.calls + new.calls if call[0] == "close"]


def test_without_redis_a_client_goes_on_in_its_process_and_is_to_come_again_elsewhere(processes, impatient):
    with RedisServer() as own, ExitStack() as stack:
        old, new = (Process(own, "test", stack) for _ in range(2))
        with Speaker(old.port).begin() as client:
            client.send("zero")
            assert client.next() == "echo zero", "its calls have ended, which may ask Redis"
            impatient()
            own.kill()
            client.lose()
            client.port = new.port
            client.open().hello(client.token)
            code, _ = client.is_refused()
            assert code == 1013
            assert move(client, old).resumed
            client.send("one")
            assert client.next() == "echo one"
            assert not [call for call in old.calls + new.calls if call[0] == "close"]
