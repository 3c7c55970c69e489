"""Who owns a room over Redis: two or three processes, as far as Redis can tell, and what their handlers are called."""

import itertools
import random
import threading
import time

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.redis_proxy import Proxy
from tests.redis_server import RedisServer
from tests.room_worlds import RedisWorld
from wsthreads.brokers import lease_scripts, leases
from wsthreads.brokers.keys import LEASE_S
from wsthreads.errors import PostError, UsageError, WSThreadsError
from wsthreads.monitoring.metrics import Metrics
from wsthreads.rooms.posts import Outcome, Sender

HOOKS = frozenset({"on_room_start", "on_post", "on_room_end"})


class Worker:
    """The rooms of one process, and the calls of its handler."""

    def __init__(self, world, rooms, *, hooks=HOOKS, rate=None, on_call=None, **options):
        self.world, self.rooms = world, rooms
        self.link = rooms._link
        self.on_call = on_call
        #: (when, the room, its fencing number, the kind of call, the value of a post)
        self.calls = []
        self.ownership = rooms.use_ownership(
            timers=world.flusher,
            run=self._run,
            hooks=lambda: hooks,
            tick_rate=lambda: rate,
            count=lambda name, n: None,
            tick_lag=Metrics().histogram("tick"),
            **{"threads": 4, "batch": 1, "max_post_bytes": 65536, "post_timeout_s": 10.0, **options},
        )
        self.ownership.refresh()

    def _run(self, calls):
        for call in calls:
            if call.begin():
                self.calls.append((time.monotonic(), call.room.name, call.room.fencing_number, call.kind, call.value))
                if self.on_call is not None:
                    self.on_call(call)
            call.done()

    def join(self, room="game"):
        return self.world.member(room, of=self.rooms).session

    def leave(self, session):
        self.rooms.leave_all(session)

    def kinds(self, room="game"):
        return [kind for _, name, _, kind, _ in self.calls if name == room]

    def posts(self, room="game"):
        return [value for _, name, _, kind, value in self.calls if name == room and kind == "post"]

    def fence(self, room="game"):
        return self.ownership.owns(room)

    def wait_owner(self, room="game"):
        wait_until(lambda: self.fence(room) and "room_start" in self.kinds(room), "it owns the room")
        return self.fence(room)

    def post(self, value, room="game", sender=None):
        """Post a value, which is JSON text. Returns what will be its outcome."""
        outcome = Outcome()
        self.ownership.post(room, value, sender, outcome.settle)
        return outcome

    def posted(self, value, room="game", sender=None):
        self.post(value, room, sender).wait(room, DEADLINE_S)


class Workers(RedisWorld):
    def __init__(self, url, processes=2, prefix="", **options):
        super().__init__(url, prefix=prefix or f"owners-{random.randrange(2**32)}", processes=processes)
        self.workers = [Worker(self, rooms, **options) for rooms in self.all_rooms]

    def end(self):
        for worker in self.workers:
            worker.ownership.stop(DEADLINE_S)
        super().end()

    def kill(self, worker):
        """End a process without a farewell, and all that it does."""
        for link in getattr(worker.link, "_by_node", {"": worker.link}).values():
            link._writer._registration.say_farewell = lambda *names: None
            link._writer.stop_soon()
            wait_until(lambda link=link: link._queue.has_ended)
            link._reader.stop(DEADLINE_S)

    def all_calls(self):
        return sorted(call for worker in self.workers for call in worker.calls)


@pytest.fixture(scope="module")
def server():
    with RedisServer() as server:
        yield server


@pytest.fixture
def make(request):
    made = []

    def make(url, **options):
        made.append(Workers(url, **options))
        return made[-1]

    yield make
    for world in made:
        world.end()


@pytest.fixture
def long_leases(monkeypatch):
    """Leases that no test waits for: what happens does not happen because one has ended."""
    last_ms = f"now + {LEASE_S * 1000:.0f}"
    assert last_ms in lease_scripts.KEEP
    monkeypatch.setattr(lease_scripts, "KEEP", lease_scripts.KEEP.replace(last_ms, "now + 1000000"))
    monkeypatch.setattr(leases, "LEASE_S", 1000.0)


def test_the_first_process_with_a_member_owns_the_room(server, make):
    a, b = make(server.url).workers
    a.join()
    fence = a.wait_owner()
    b.join()
    b.posted('"from b"')
    a.posted('"from a"')
    assert a.posts() == ['"from b"', '"from a"']
    assert b.calls == []
    assert abs(fence - time.time() * 1000) < 60_000
    assert a.rooms.owned_room("game", fence).is_owner()
    assert not b.rooms.owned_room("game", fence).is_owner()
    assert not a.rooms.owned_room("game", fence - 1).is_owner()


def test_a_post_has_its_sender(server, make):
    seen = []
    a, b = make(server.url, on_call=lambda call: seen.append(call.sender)).workers
    a.join()
    b.posted("1", sender=Sender("some-id", "ann"))
    b.posted("1", sender=Sender("other-id", None))
    b.posted("1")
    assert seen == [None, Sender("some-id", "ann"), Sender("other-id", None), None]


@pytest.mark.usefixtures("long_leases")
def test_the_room_moves_at_once_when_the_owners_last_member_leaves(server, make):
    world = make(server.url, processes=3)
    a, b, c = world.workers
    member = a.join()
    first = a.wait_owner()
    for other in (b, c):
        other.join()
    wait_until(lambda: all("game" in str(list(w.link._leases._claims)) for w in (b, c)))
    a.leave(member)
    wait_until(lambda: b.fence() or c.fence(), "another one owns it")
    wait_until(lambda: len(world.all_calls()) == 3)
    assert [kind for *_, kind, _ in world.all_calls()] == ["room_start", "room_end", "room_start"]
    assert (b.fence() or c.fence()) > first
    assert not a.fence()


def test_a_room_of_nobody_takes_no_posts(server, make):
    a, b = make(server.url).workers
    with pytest.raises(PostError, match="the post to the room 'game' was refused: the room has no members") as raised:
        b.posted("1")
    assert not raised.value.is_unknown
    member = a.join()
    b.posted("1")
    a.leave(member)
    wait_until(lambda: a.kinds()[-1] == "room_end")
    wait_until(lambda: not a.link._leases._returns)
    with pytest.raises(PostError, match="the room has no members"):
        b.posted("1")


def test_a_member_can_post_right_after_its_join(server, make):
    a, b = make(server.url).workers
    for n in range(20):
        for worker, other in ((a, b), (b, a)):
            worker.join(f"room {n} {id(worker)}")
            other.posted("1", room=f"room {n} {id(worker)}")


def test_what_on_post_broadcasts_arrives_before_the_post_returns(server, make):
    world = make(server.url)
    a, b = world.workers
    a.on_call = lambda call: call.room.broadcast(call.value) if call.kind == "post" else None
    a.join()
    a.wait_owner()
    member = world.member("game", of=b.rooms)
    for n in range(100):
        b.posted(f'"{n}"')
        member.session.send(f"posted {n}")
    assert member.receive(200) == [text for n in range(100) for text in (f'"{n}"', f"posted {n}")]


def test_posts_of_each_poster_are_handled_in_its_order_and_once(server, make):
    world = make(server.url, processes=3)
    world.workers[0].join()
    count = 400

    def post_all(worker, n):
        outcomes = [worker.post(f'"{n} {k}"') for k in range(count)]
        for outcome in outcomes:
            outcome.wait("game", DEADLINE_S)

    threads = [threading.Thread(target=post_all, args=(w, n)) for n, w in enumerate(world.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handled = world.workers[0].posts()
    for n in range(3):
        assert [value for value in handled if value.startswith(f'"{n} ')] == [f'"{n} {k}"' for k in range(count)]
    assert len(handled) == 3 * count


@pytest.mark.quiet  # the lease lasts for 2.6 s of the 3 s
def test_when_the_owner_dies_another_one_takes_the_room_and_lost_posts_are_known(server, make):
    world = make(server.url, processes=3)
    a, b, c = world.workers
    release = threading.Event()
    a.on_call = lambda call: release.wait(DEADLINE_S) if call.value == '"stuck"' else None
    a.join()
    first = a.wait_owner()
    b.join()
    c.posted('"handled"')
    stuck = c.post('"stuck"')
    wait_until(lambda: '"stuck"' in a.posts())
    waiting = [c.post('"0"')]  # an owner that is busy takes no more: less is lost when it dies
    began = time.monotonic()
    world.kill(a)
    waiting += [c.post(f'"{n}"') for n in (1, 2)]
    wait_until(lambda: b.fence())
    assert time.monotonic() - began < 3.0
    assert b.fence() > first
    with pytest.raises(PostError, match="it is not known whether the post was handled") as raised:
        stuck.wait("game", DEADLINE_S)
    assert raised.value.is_unknown
    for outcome in waiting:
        outcome.wait("game", DEADLINE_S)
    assert b.posts() == ['"0"', '"1"', '"2"']
    release.set()


@pytest.mark.quiet  # the lease lasts for 2.6 s of the 3 s
def test_a_process_that_is_cut_off_stops_before_another_one_begins(server, make, impatient):
    impatient()
    with Proxy(server.port) as proxy:
        prefix = f"cut-{random.randrange(2**32)}"
        world = make(server.url, processes=1, prefix=prefix, hooks=HOOKS | {"on_tick"}, rate=60)
        away = make(proxy.url, processes=1, prefix=prefix, hooks=HOOKS | {"on_tick"}, rate=60)
        (a,), (b,) = away.workers, world.workers
        a.join()
        first = a.wait_owner()
        b.join()
        wait_until(lambda: len(a.kinds()) > 10)
        began = time.monotonic()
        proxy.swallow()
        second = b.wait_owner()
        assert time.monotonic() - began < 3.0
        wait_until(lambda: len(b.kinds()) > 10)
        wait_until(lambda: a.kinds()[-1] == "room_end", "it has noticed")
        proxy.heal()
        _check_one_owner(a, b)
        assert second > first
        assert a.calls[-1][0] < b.calls[0][0], "it was over before"
        values = map(str, itertools.count())
        wait_until(lambda: _works(lambda _: a.posted(next(values))), "it can post again")
        assert b.posts()
        assert len(set(b.posts())) == len(b.posts()), "what may have been handled is not sent again"


def _works(post):
    try:
        post("1")
    except WSThreadsError:
        return False
    return True


def _check_one_owner(*workers):
    """No fencing number is seen in two processes, and none after a higher one."""
    calls = sorted((at, fence, n) for n, worker in enumerate(workers) for at, _, fence, kind, _ in worker.calls
                   if kind != "room_end")  # fmt: skip
    assert [fence for _, fence, _ in calls] == sorted(fence for _, fence, _ in calls)
    assert len({(fence, n) for _, fence, n in calls}) == len({fence for _, fence, _ in calls})


@pytest.mark.long
def test_a_short_break_of_the_connection_moves_nothing(server, make, impatient):
    impatient()
    with Proxy(server.port) as proxy:
        world = make(proxy.url)
        a, b = world.workers
        a.join()
        fence = a.wait_owner()
        b.join()
        for n in range(3):
            proxy.swallow("answers")  # Redis does what it was asked
            wait_until(lambda: 0 < (a.link._availability.asked_at or 0) < time.monotonic() - 0.05)
            proxy.heal()
            wait_until(lambda n=n: a.link._writer._registration.count > n + 1)
            wait_until(lambda: _works(b.posted))
        time.sleep(LEASE_S)  # the lease of before the break would have ended by now
        assert a.fence() == fence
        assert b.calls == []
        assert "room_end" not in a.kinds()


@pytest.mark.usefixtures("long_leases")
def test_the_owner_notices_at_once_that_redis_has_lost_its_data(server, make):
    (a,) = make(server.url, processes=1).workers
    a.join()
    a.wait_owner()
    server.client.flushall()
    wait_until(lambda: "room_end" in a.kinds(), "the owner has noticed")


def test_a_redis_that_has_lost_its_data_makes_no_second_owner(server, make):
    world = make(server.url, processes=3, hooks=HOOKS | {"on_tick"}, rate=60)
    for worker in world.workers:
        worker.join()
    wait_until(lambda: any(worker.fence() for worker in world.workers))
    server.client.flushall()
    wait_until(lambda: any("room_end" in worker.kinds() for worker in world.workers), "the owner has noticed")
    wait_until(lambda: any(worker.fence() for worker in world.workers), "somebody owns it again")
    calls = world.all_calls()
    wait_until(lambda: len(world.all_calls()) > len(calls) + 60)
    _check_one_owner(*world.workers)


@pytest.mark.long
def test_a_slow_redis_moves_nothing(server, make, impatient):
    impatient()
    with Proxy(server.port) as proxy:
        world = make(proxy.url, hooks=HOOKS | {"on_tick"}, rate=20)
        a, b = world.workers
        a.join()
        fence = a.wait_owner()
        b.join()
        proxy.pause_s = 0.3
        time.sleep(2 * LEASE_S)
        b.posted("1")
        proxy.pause_s = 0.0
        assert a.fence() == fence
        assert a.posts() == ["1"]
        assert b.calls == []


@pytest.mark.long
def test_a_very_slow_redis_makes_no_second_owner(server, make, impatient):
    impatient()
    with Proxy(server.port) as proxy:
        world = make(proxy.url, hooks=HOOKS | {"on_tick"}, rate=20)
        a, b = world.workers
        a.join()
        a.wait_owner()
        b.join()
        proxy.pause_s = 1.0  # for each piece of an answer: a lease may end
        time.sleep(2 * LEASE_S)
        proxy.pause_s = 0.0
        wait_until(lambda: a.fence() or b.fence(), "somebody owns it again")
        wait_until(lambda: _works(b.posted), "posts are handled again")
        _check_one_owner(a, b)


@pytest.mark.long
def test_posts_raise_while_redis_is_away_and_are_not_handled_again_if_it_comes_back_with_an_older_state(make):
    with RedisServer() as server:
        world = make(server.url, post_timeout_s=10 * DEADLINE_S)
        a, b = world.workers
        a.join()
        a.wait_owner()
        b.join()
        b.posted("1")
        key = a.link._keys.address(world.path, "game").posts
        now_ms = int(time.time() * 1000)
        server.kill()
        with pytest.raises(PostError):
            b.posted("2")
        wait_until(lambda: not b.link._availability.answers)
        with pytest.raises(PostError, match="is unavailable; the post was not handled"):
            b.posted("3")
        wait_until(lambda: a.kinds()[-1] == "room_end")
        assert a.fence() is None
        server.start()
        server.client.rpush(key, f'wake 0 {now_ms + 60_000} {now_ms}\nnull\n"again"')
        wait_until(lambda: a.fence() or b.fence())
        wait_until(lambda: _works(b.posted))
        assert a.posts()[0] == "1"
        assert '"again"' not in a.posts() + b.posts()
        assert not server.client.exists(key)


def test_a_program_without_a_server_posts(server, make):
    world = make(server.url)
    a, _ = world.workers
    room = world.broker.room(world.path, "game")
    with pytest.raises(PostError, match="the post to the room 'game' was refused: the room has no members"):
        room.post(1)
    a.join()
    room.post({"from": "outside"})
    assert a.posts() == ['{"from":"outside"}']
    a.on_call = lambda call: a.link._writer.stop_soon()  # it dies while it handles the next one
    with pytest.raises(PostError, match="it is not known whether the post was handled") as raised:
        room.post(2, timeout_s=0.5)
    assert raised.value.is_unknown
    for value, timeout_s, error in [(float("nan"), 1, "must be JSON, not nan"), (1, 0, "above 0"), (1, 1e9, "300 s")]:
        with pytest.raises((PostError, UsageError), match=error):
            room.post(value, timeout_s=timeout_s)


def test_a_process_without_the_hooks_owns_nothing_and_may_post(server, make):
    world = make(server.url)
    a = world.workers[0]
    bare = Worker(world, world.all_rooms[1], hooks=frozenset())
    bare.join()
    with pytest.raises(PostError, match="the room has no members"):
        bare.posted("1")
    a.join()
    bare.posted("1")
    assert a.posts() == ["1"]


def test_an_owner_without_on_post_says_so(server, make):
    world = make(server.url)
    b = world.workers[1]
    ticking = Worker(world, world.all_rooms[0], hooks=frozenset({"on_room_start"}))
    ticking.join()
    with pytest.raises(PostError, match="the handler has no on_post in the owner's process"):
        b.posted("1")


@pytest.mark.usefixtures("long_leases")
def test_a_shut_down_hands_over(server, make):
    world = make(server.url)
    a, b = world.workers
    a.join()
    a.wait_owner()
    b.join()
    a.ownership.stop(DEADLINE_S)
    a.link.stop(DEADLINE_S)
    b.wait_owner()
    assert a.kinds() == ["room_start", "room_end"]


def test_many_rooms_are_shared_out_and_taken_over(server, make):
    world = make(server.url)
    a, b = world.workers
    names = [f"room {n}" for n in range(200)]
    a.world.member(*names, of=a.rooms)
    b.world.member(*names, of=b.rooms)
    wait_until(lambda: len(a.ownership.states()) == 200)
    world.kill(a)
    wait_until(lambda: len(b.ownership.states()) == 200, "all have another owner, soon after one lease has ended")
