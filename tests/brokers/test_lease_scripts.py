"""The scripts for the owners of rooms, and for posts, alone: leases, take-overs, and what becomes of each post."""

import json
import time

import pytest

from tests.programs import DEADLINE_S
from tests.redis_server import RedisServer
from wsthreads.brokers import lease_scripts as scripts
from wsthreads.brokers.keys import LEASE_S, Keys
from wsthreads.brokers.session_scripts import FREE, HOLD, away_name


@pytest.fixture(scope="module")
def server():
    with RedisServer() as server:
        yield server


class Process:
    """What one process asks of Redis for one room."""

    def __init__(self, redis, name="a", room="game"):
        self.redis, self.name = redis, name
        self.lease = f"{name}.0"
        self.channel = f"wake:{name}"
        self.keys = Keys("test", 0)
        self.room = self.keys.address("/ws", room)
        self.holders = self.keys.holders(self.room.shard)
        self.pubsub = redis.pubsub(ignore_subscribe_messages=True)
        self.pubsub.subscribe(self.channel)
        assert self.pubsub.get_message(timeout=DEADLINE_S) is None

    def call(self, script, keys, *arguments):
        return self.redis.eval(script, len(keys), *keys, *arguments)

    def keep(self, *others, is_new=False):
        return self.call(scripts.KEEP, [self.holders], self.lease, int(is_new), *others)

    def claim(self, may_take=True, hearing_ms=-1):
        keys = [self.holders, self.room.lease, self.room.taken, self.room.posts]
        (answer,) = self.call(scripts.CLAIM, keys, self.lease, self.channel, int(may_take), hearing_ms) or [None]
        return answer

    def confirm(self, fence, former=""):
        keys = [self.room.lease, self.room.posts, self.room.taken]
        return self.call(scripts.CONFIRM, keys, self.lease, self.channel, former, fence) == [1]

    def give_back(self, fence="", *outcomes, first=0, wants=False):
        keys = self.keys.post_box(self.room)
        self.call(scripts.GIVE_BACK, keys, self.lease, fence, int(wants), first, *outcomes)

    def turn(self, fence, received=0, limit=100, first=0, outcomes=(), max_bytes=1 << 20):
        keys = self.keys.post_box(self.room)
        answer = self.call(scripts.TURN, keys, fence, received, limit, max_bytes, "", first, *outcomes)
        return None if answer == [0] else [entry.partition(b"\n")[2].decode() for entry in answer[2::2]]

    def close(self, fence, is_closing=True):
        """Say that there are no members any more. Returns whether it has all posts, and those that it receives."""
        keys = self.keys.post_box(self.room)
        is_all, *found = self.call(scripts.TURN, keys, fence, 0, 100, 1 << 20, int(is_closing), 0)
        return is_all == 2, [entry.partition(b"\n")[2].decode() for entry in found[1::2]]

    def post(self, *numbers, left_ms=10_000, most=1000):
        keys = self.keys.post_box(self.room)
        posts = [part for n in numbers for part in (n, f"post {n}")]
        return self.call(scripts.POST, keys, self.channel, left_ms, most, *posts)

    def owned(self):
        self.keep(is_new=True)
        fence = self.claim()
        assert fence.isdigit()
        return fence.decode()

    def end_lease(self):
        """As time does."""
        self.redis.zadd(self.holders, {self.lease: 1})

    def heard(self):
        """What has come on the wake channel: True for each wake, the outcomes of posts by their numbers."""
        self.redis.publish(self.channel, "end")
        found = []
        while (data := self.pubsub.get_message(timeout=DEADLINE_S)["data"]) != b"end":
            if data.startswith(b"!"):
                assert data[1:] == self.room.lease
                found.append(True)
            else:
                found.append({int(n): outcome for n, outcome in json.loads(data[1:])})
        return found


@pytest.fixture
def processes(server):
    server.client.flushall()
    made = [Process(server.client, name) for name in "abc"]
    yield made
    for process in made:
        process.pubsub.close()


def test_one_process_takes_a_room_and_others_learn_for_how_long(processes):
    a, b, _ = processes
    fence = a.owned()
    b.keep(is_new=True)
    holder, left_ms = b.claim()
    assert holder == b"a.0"
    assert 0 < left_ms <= LEASE_S * 1000
    assert b.keep("a.0", "nobody.0")[0] == 1
    assert 0 < b.keep("a.0")[1] <= LEASE_S * 1000
    assert b.keep("nobody.0")[1] < 0
    assert a.redis.hget(a.room.lease, "fence").decode() == fence


def test_the_fencing_number_grows_with_the_time_and_with_each_ownership(processes):
    a, b, _ = processes
    first = int(a.owned())
    assert abs(first - time.time() * 1000) < 60_000  # this is the clock of the same machine
    a.redis.hset(a.room.lease, "last", first + 10**9)
    a.end_lease()
    assert int(b.owned()) == first + 10**9 + 1
    b.give_back(first + 10**9 + 1)
    assert int(b.claim()) == first + 10**9 + 2


def test_a_lease_that_has_ended_is_not_extended_and_takes_nothing(processes):
    a, b, _ = processes
    fence = a.owned()
    a.end_lease()
    assert a.keep() == [0]
    assert a.claim() is None
    assert a.turn(fence) is None
    taken = b.owned()
    assert int(taken) > int(fence)
    assert a.keep(is_new=True) == [1]
    assert a.claim()[0] == b"b.0"
    assert a.turn(fence) is None
    assert not a.confirm(fence)


def test_a_lease_ends_also_if_the_clock_of_redis_goes_back(processes):
    a, b, _ = processes
    a.owned()
    b.keep(is_new=True)
    now = b.redis.time()[0] * 1000
    b.redis.zadd(b.holders, {a.lease: now + 60_000})  # the clock was a minute ahead when a was killed
    kept, left_ms = b.keep(a.lease)
    assert kept == 1
    assert LEASE_S * 1000 - 100 < left_ms <= LEASE_S * 1000
    assert b.redis.zscore(b.holders, a.lease) <= now + 1000 + LEASE_S * 1000
    (_, left_ms) = b.claim()
    assert left_ms <= LEASE_S * 1000


def test_who_may_not_take_a_room_only_asks_for_it(processes):
    a, b, _ = processes
    a.keep(is_new=True)
    assert a.claim(may_take=False) == [b"", -1]
    assert b.post(1) == 1, "somebody is going to own it"
    assert a.claim().isdigit()


def test_a_room_that_is_given_back_wakes_those_who_want_it(processes):
    a, b, c = processes
    fence = a.owned()
    for other in (b, c):
        other.keep(is_new=True)
        other.claim()
    c.end_lease()
    a.give_back(fence)
    assert (a.heard(), b.heard(), c.heard()) == ([], [True], [])
    assert a.redis.hget(a.room.lease, "fence") is None
    assert b.claim().isdigit()
    a.give_back(fence)  # a repeated call
    assert b.redis.hget(b.room.lease, "holder") == b"b.0"


def test_a_process_that_has_a_new_lease_after_a_break_keeps_its_rooms(processes):
    a, b, _ = processes
    fence = a.owned()
    assert b.post(1) == 1
    a.lease = "a.1"
    a.keep(is_new=True)
    assert a.confirm(fence, former="a.0")
    a.redis.zrem(a.holders, "a.0")
    assert a.turn(fence) == ["post 1"]
    b.keep(is_new=True)
    assert b.claim()[0] == b"a.1"
    a.give_back(fence, "")
    assert a.redis.hkeys(a.room.lease) == [b"last", b"@b.0"]


def test_posts_are_taken_in_order_and_their_posters_told(processes):
    a, b, c = processes
    fence = a.owned()
    assert b.post(0, 1) == 2
    assert c.post(7) == 1
    assert b.post(2) == 1
    assert a.heard() == [True] * 3
    assert a.turn(fence, limit=3) == ["post 0", "post 1", "post 7"]
    assert b.post(3) == 1
    assert a.heard() == [], "it takes again anyway when it has handled what it has"
    assert a.turn(fence, received=3, first=0, outcomes=["", "?broken"]) == ["post 2", "post 3"]
    assert a.turn(fence, received=5, first=2, outcomes=["", "", ""]) == []
    assert b.heard() == [{0: "", 1: "?broken"}, {2: "", 3: ""}]
    assert c.heard() == [{7: ""}]
    assert b.post(4) == 1
    assert a.heard() == [True]


def test_a_turn_that_is_repeated_changes_nothing(processes):
    a, b, _ = processes
    fence = a.owned()
    b.post(*range(6))
    assert a.turn(fence, limit=3) == ["post 0", "post 1", "post 2"]
    for _ in range(2):  # its answer was lost, and it has more to say
        assert a.turn(fence, received=3, limit=2, first=0, outcomes=["", ""]) == ["post 3", "post 4"]
    assert a.turn(fence, received=5, first=0, outcomes=["", "", "", "", ""]) == ["post 5"]
    assert b.heard() == [{0: "", 1: ""}, {2: "", 3: "", 4: ""}]


def dump(process):
    return {key: process.redis.dump(key) for key in (process.room.lease, process.room.posts, process.room.taken)}


def go_back_to(process, snapshot):
    """Redis restarts with an older state."""
    for key, value in snapshot.items():
        process.redis.delete(key)
        if value is not None:
            process.redis.restore(key, 0, value)


def test_posts_of_an_older_state_are_all_given_up(processes):
    a, b, _ = processes
    fence = a.owned()
    b.post(0, 1, 2, 3)
    before_any, taken = dump(a), a.turn(fence, limit=2)
    assert taken == ["post 0", "post 1"]
    before_told = dump(a)
    assert a.turn(fence, received=2, first=0, outcomes=["", ""]) == ["post 2", "post 3"]
    assert b.heard() == [{0: "", 1: ""}]
    for snapshot, lost in ((before_any, {0, 1, 2, 3}), (before_told, {0, 1, 2, 3})):
        go_back_to(a, snapshot)
        a.heard()
        assert a.turn(fence, received=4, first=2) is None
        (told,) = b.heard()
        assert told == dict.fromkeys(lost, "lost")
        assert a.claim(may_take=False)[1] < 0, "the room is free"
        assert a.redis.exists(a.room.posts, a.room.taken) == 0
    go_back_to(a, before_told)
    a.give_back(fence, "", first=2)
    assert b.heard() == [dict.fromkeys(range(4), "lost")]
    assert a.redis.exists(a.room.posts, a.room.taken) == 0


def test_who_takes_a_room_after_a_break_gives_up_the_posts_from_before_it(processes):
    """They may have been handled: Redis may have an older state since then."""
    a, b, c = processes
    a.owned()
    c.post(0, 1, 2)
    for n, entry in enumerate(a.redis.lrange(a.room.posts, 0, 1)):
        head, _, value = entry.partition(b"\n")
        posted_ms = int(head.split()[-1]) - 3_600_000
        a.redis.lset(a.room.posts, n, b" ".join([*head.split()[:-1], b"%d\n" % posted_ms]) + value)
    a.end_lease()
    b.keep(is_new=True)
    fence = b.claim(hearing_ms=1_800_000)
    assert c.heard() == [{0: "lost", 1: "lost"}]
    assert b.turn(fence) == ["post 2"]


def test_who_takes_a_room_and_has_missed_nothing_handles_all_posts(processes):
    a, b, c = processes
    a.owned()
    c.post(0, 1)
    a.end_lease()
    b.keep(is_new=True)
    assert b.turn(b.claim()) == ["post 0", "post 1"]


def test_at_most_so_many_bytes_are_taken_at_once(processes):
    a, b, _ = processes
    fence = a.owned()
    b.post(*range(6))
    assert a.turn(fence, max_bytes=1) == ["post 0"]


def test_what_a_dead_owner_has_taken_is_lost_and_the_rest_is_the_next_ones(processes):
    a, b, c = processes
    fence = a.owned()
    c.post(0, 1, 2, 3)
    a.turn(fence, limit=3)
    a.turn(fence, received=3, limit=0, first=0, outcomes=[""])
    a.end_lease()
    b.keep(is_new=True)
    assert c.post(4) == -1, "nobody wants the room"
    assert b.claim(may_take=False)[0] == b"a.0"
    assert c.post(5) == 1
    assert c.heard() == [{0: ""}]
    assert b.turn(fence) is None
    assert b.turn(b.claim().decode()) == ["post 3", "post 5"]
    assert c.heard() == [{1: "lost", 2: "lost"}]
    assert a.turn(fence, received=3, first=1, outcomes=["", ""]) is None
    assert c.heard() == []


def test_what_an_owner_has_not_begun_is_given_back(processes):
    a, b, c = processes
    fence = a.owned()
    b.keep(is_new=True)
    b.claim()
    c.post(*range(5))
    a.turn(fence, limit=4)
    a.give_back(fence, "", "lost", first=0)
    assert c.heard() == [{0: "", 1: "lost"}]
    assert b.heard() == [True]
    assert b.turn(b.claim().decode()) == ["post 2", "post 3", "post 4"]


def test_without_anybody_left_the_posters_are_told(processes):
    a, b, c = processes
    fence = a.owned()
    c.post(0, 1)
    a.give_back(fence)
    assert c.heard() == [{0: "nobody", 1: "nobody"}]
    assert c.post(2) == -1
    a.keep(is_new=True)
    a.claim(may_take=False)
    b.keep(is_new=True)
    b.claim(may_take=False)
    assert c.post(3) == 1
    a.give_back()
    assert c.heard() == []
    b.give_back()
    assert c.heard() == [{3: "nobody"}]
    assert a.redis.exists(a.room.posts, a.room.taken) == 0


def test_posts_wait_for_the_process_to_which_a_member_is_on_its_way(processes):
    a, b, c = processes
    fence = a.owned()
    keys, away = [a.room.members, a.keys.processes(a.room.shard)], away_name("session")
    held = [a.room.log, a.room.head, *keys]
    c.post(0)
    a.call(HOLD, held, away, 60_000)
    assert a.close(fence) == (True, [])
    assert c.post(1) == 1
    a.give_back(fence)
    assert c.post(2) == 1
    assert c.heard() == []
    assert b.turn(b.owned()) == ["post 0", "post 1", "post 2"]
    b.give_back(a.redis.hget(a.room.lease, "fence").decode(), "", "", "")
    a.redis.zadd(keys[1], {away: 1})
    assert c.post(3) == -1, "its window has ended"
    a.call(HOLD, held, away, 60_000)
    assert c.post(4) == 1
    a.call(FREE, [*keys, "presence"], away, "")
    assert c.post(5) == -1, "it is where it was on its way to, and that process does not want the room"


def test_the_queue_of_a_room_has_a_limit(processes):
    a, b, _ = processes
    fence = a.owned()
    assert b.post(*range(9), most=10) == 9
    assert b.post(10, 11, most=10) == 1
    assert b.post(12, most=10) == 0
    a.turn(fence, limit=1)
    assert b.post(13, most=10) == 1


def test_an_owner_without_members_gets_what_was_posted_before_and_nothing_more(processes):
    a, b, c = processes
    fence = a.owned()
    c.post(0, 1)
    assert a.close(fence) == (True, ["post 0", "post 1"])
    assert c.post(2) == -1
    assert a.close(fence, is_closing=False)[0] is False
    assert c.post(3) == 1, "it has members again"
    b.keep(is_new=True)
    b.claim()
    assert a.close(fence) == (True, ["post 0", "post 1"]), "b wants the room: the rest is for b"
    assert c.post(4) == 1
    a.give_back(fence, "", "")
    assert b.turn(b.claim().decode()) == ["post 3", "post 4"]


def test_a_post_says_for_how_long_it_may_be_handled(processes):
    a, b, _ = processes
    fence = a.owned()
    b.post(1, left_ms=-5)
    b.post(2, left_ms=60_000)
    keys = a.keys.post_box(a.room)
    _, late, _, left, _ = a.call(scripts.TURN, keys, fence, 0, 9, 999, "", 0)
    assert int(late) < 0 < int(left) <= 60_000


def test_all_keys_expire(processes):
    a, b, _ = processes
    fence = a.owned()
    b.post(1, 2)
    a.turn(fence, limit=1)
    keys = a.redis.keys("{test:*")
    assert len(keys) == 4
    assert all(a.redis.ttl(key) > 0 for key in keys)
