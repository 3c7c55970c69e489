"""What is lost over Redis is noticed, logged and counted; and what is not lost is not."""

import logging
import time
from types import SimpleNamespace

import pytest

from tests.programs import wait_until
from tests.redis_proxy import Proxy
from tests.room_worlds import RedisWorld
from wsthreads.brokers import malformed, replay
from wsthreads.brokers.keys import TOUCH_S
from wsthreads.rooms.names import user_room


class Pair:
    """Two processes with a member of the lobby each: `a` has its Redis behind a proxy."""

    def __init__(self, server, proxy):
        self.client = server.client
        self.worlds = [RedisWorld(url, processes=1) for url in (proxy.url, server.url)]
        self.a, self.b = (world.member("lobby") for world in self.worlds)
        self.address = self.worlds[1].links[0]._keys.address("/ws/test", "lobby")

    def say(self, *texts):
        """Broadcast by `b`, and hear it there: so that Redis has it."""
        for text in texts:
            self.b.session.room("lobby").broadcast(text)
        assert self.b.receive(len(texts)) == list(texts)

    def gaps(self, of=0):
        return self.worlds[of].metrics[0].snapshot().get("broker_gaps", 0)

    def touch(self):
        """Have all rooms announced again, as they are after 20 s."""
        for world in self.worlds:
            for room in world.links[0]._subscriptions.rooms.values():
                room.touched_at = room.announced_at = -TOUCH_S


@pytest.fixture
def proxy(redis):
    with Proxy(redis.port) as proxy:
        yield proxy


@pytest.fixture
def pair(redis, proxy, caplog):
    caplog.set_level(logging.WARNING)
    pair = Pair(redis, proxy)
    pair.say("before")
    assert pair.a.receive(1) == ["before"]
    yield pair
    for world in pair.worlds:
        world.end()


def lines(caplog):
    loggers = {malformed.__name__, replay.__name__}
    return [record.getMessage() for record in caplog.records if record.name in loggers]


def test_broadcasts_whose_log_has_expired_are_counted_by_who_was_cut_off(pair, proxy, caplog):
    proxy.cut()
    pair.say("1", "2", "3")
    pair.client.delete(pair.address.log)  # as it is after a minute
    proxy.heal()
    wait_until(lambda: pair.gaps() == 1, "the gap in the metrics")
    assert lines(caplog) == [
        "3 broadcasts are lost in the room 'lobby': Redis no longer had everything when this process read again"
    ]
    pair.say("after")
    assert pair.a.receive(1) == ["after"]
    assert pair.gaps() == 1
    assert pair.gaps(of=1) == 0, "who was not cut off has lost nothing"


def test_who_was_cut_off_while_nothing_was_said_has_lost_nothing(pair, proxy, caplog):
    proxy.cut()
    wait_until(lambda: not pair.worlds[0].links[0]._availability.answers, "the loss of the connection")
    pair.client.delete(pair.address.log)
    proxy.heal()
    pair.a.session.room("lobby").broadcast("after")
    assert pair.a.receive(1) == pair.b.receive(1) == ["after"]
    assert pair.gaps() == 0
    assert lines(caplog) == []


def test_a_log_that_is_gone_loses_nothing_to_those_who_listen(pair, caplog):
    pair.client.delete(pair.address.log)  # as a Redis may do that has too little memory
    pair.say("1", "2")
    assert pair.a.receive(2) == ["1", "2"]
    assert pair.gaps() == pair.gaps(of=1) == 0


@pytest.mark.parametrize("is_cut", [False, True], ids=["connected", "cut off"])
@pytest.mark.parametrize("clock_back_s", [0, 20])
def test_a_redis_that_was_emptied_is_noticed_and_nothing_more_is_dropped(pair, proxy, caplog, is_cut, clock_back_s):
    if clock_back_s:  # up to here it was ahead
        ahead = int((time.time() + clock_back_s) * 1000)
        pair.client.xadd(pair.address.log, {"other": ""}, id=f"{ahead}-0")
    pair.say("1")
    assert pair.a.receive(1) == ["1"]
    if is_cut:
        proxy.cut()
        wait_until(lambda: not pair.worlds[0].links[0]._availability.answers, "the loss of the connection")
    pair.client.flushall()
    pair.say("2", "3")
    proxy.heal()
    assert pair.a.receive(2) == ["2", "3"]
    pair.say("4")
    assert pair.a.receive(1) == ["4"]
    wait_until(lambda: pair.gaps() == pair.gaps(of=1) == 1, "the gap in the metrics of both")
    assert len(lines(caplog)) == 2
    assert lines(caplog)[0].startswith("broadcasts may be lost in the room 'lobby': Redis has lost its data, has")


def test_members_are_counted_again_after_redis_was_emptied_also_beside_a_room_that_changes(pair):
    """The two rooms are on one shard, and what changes in the one has Redis know the process again."""
    keys = pair.worlds[0].links[0]._keys
    beside = next(name for name in map(str, range(1000)) if keys.address("/ws/test", name).shard == pair.address.shard)
    pair.client.flushall()
    pair.a.session.room(beside).join()
    wait_until(lambda: pair.b.session.room("lobby").members() == 2, "the member in the other process")


@pytest.mark.parametrize("again", [2, 3, 4])
@pytest.mark.parametrize("is_cut", [False, True], ids=["connected", "cut off"])
def test_a_replica_that_lagged_is_noticed_and_nothing_more_is_dropped(pair, proxy, again, is_cut):
    """Its numbers begin anew where it lagged: with fewer, as many, or more broadcasts than those that are lost."""
    keys = (pair.address.log, pair.address.head)
    kept = [pair.client.dump(key) for key in keys]
    pair.say("lost 1", "lost 2", "lost 3")
    assert pair.a.receive(3) == ["lost 1", "lost 2", "lost 3"]
    if is_cut:
        proxy.cut()
        wait_until(lambda: not pair.worlds[0].links[0]._availability.answers, "the loss of the connection")
    for key, value in zip(keys, kept, strict=True):
        pair.client.restore(key, 60_000, value, replace=True)
    texts = [f"{n}" for n in range(again)]
    pair.say(*texts)
    proxy.heal()
    assert pair.a.receive(again) == texts
    pair.say("after")
    assert pair.a.receive(1) == ["after"]
    wait_until(lambda: pair.gaps() == pair.gaps(of=1) == 1, "the gap in the metrics of both")


def test_who_was_cut_off_for_so_long_that_nobody_knows_says_so_once(pair, proxy, caplog):
    pair.b.session.room("lobby").leave()
    proxy.cut()
    wait_until(lambda: not pair.worlds[0].links[0]._availability.answers, "the loss of the connection")
    pair.client.delete(pair.address.log, pair.address.head)
    proxy.heal()
    pair.a.session.room("lobby").broadcast("after")
    assert pair.a.receive(1) == ["after"]
    wait_until(lambda: pair.gaps() == 1, "the gap in the metrics")
    assert len(lines(caplog)) == 1


def test_a_broadcast_that_was_not_passed_on_is_found_though_nothing_follows_it(pair, caplog):
    """As the nodes of a cluster may lose one between them."""
    room, sent = pair.worlds[1].broker.room("/ws/test", "lobby"), []
    address = pair.address._replace(channel=b"nobody hears this")
    room._outside().keys.address = lambda *_: sent.append(1) or address
    room.broadcast("unheard")
    assert sent
    for _ in range(2):  # the first tells where the log ends, the second that it still does not end there here
        pair.touch()
        wait_until(
            lambda: all(
                room.touched_at > 0 for world in pair.worlds for room in world.links[0]._subscriptions.rooms.values()
            ),
            "the next sign of life",
        )
    assert pair.a.receive(1) == pair.b.receive(1) == ["unheard"]
    assert pair.gaps() == 0


def test_one_line_tells_of_all_rooms(redis, proxy, caplog):
    caplog.set_level(logging.WARNING)
    pair, names = Pair(redis, proxy), [f"room {n}" for n in range(50)]
    try:
        member = pair.worlds[0].member(*names)
        proxy.cut()
        wait_until(lambda: not pair.worlds[0].links[0]._availability.answers, "the loss of the connection")
        pair.client.flushall()
        proxy.heal()
        pair.touch()
        for name in names:
            member.session.room(name).broadcast(name)
        assert sorted(member.receive(50)) == sorted(names)
        wait_until(lambda: pair.gaps() >= 50, "the gaps in the metrics")
        assert len([line for line in lines(caplog) if "may be lost" in line]) < 10
    finally:
        for world in pair.worlds:
            world.end()


@pytest.mark.parametrize(
    ("missed", "line"),
    [
        ([1], "1 broadcast is lost in the room '0': Redis no longer had everything"),
        ([1, 2], "3 broadcasts are lost in 2 rooms, such as '0': Redis no longer had everything"),
        ([None, None], "broadcasts may be lost in 2 rooms, such as '0': Redis has lost its data"),
        ([None, 1], "1 broadcast is lost, and others may be, in 2 rooms, such as '0': Redis has lost its data"),
    ],
)
def test_what_is_lost_is_told_in_one_sentence(pair, caplog, missed, line):
    rooms = [SimpleNamespace(name=f"{n}") for n in range(len(missed))]
    pair.worlds[0].links[0]._reader._replay._tell_of(list(zip(rooms, missed, strict=True)))
    assert lines(caplog)[0].startswith(line)


def test_what_an_older_version_broadcasts_is_counted_and_harms_nobody(pair, caplog):
    """As in a rolling update from a version whose logs had no numbers."""
    pair.client.xadd(pair.address.log, {"p": "", "m": b"1 old 7 . t\nsecret"})
    pair.client.publish(pair.address.channel, b"1700000000000-0 \n1 old 7 . t\nsecret")
    pair.say("after")
    assert pair.a.receive(1) == ["after"]
    assert pair.worlds[0].metrics[0].snapshot()["broker_malformed"] == 1
    assert "were not published in version 4 of the format" in caplog.text
    assert "secret" not in caplog.text
    assert pair.gaps() == 0


@pytest.mark.parametrize(
    ("names", "where"),
    [
        (["a"], "in the room 'a'"),
        ([user_room("ann"), "b", "a"], "in 2 rooms, such as 'b' and for the user 'ann'"),
        ([user_room("ann"), user_room("bob")], "for 2 users, such as 'ann'"),
    ],
)
def test_the_log_names_users_and_no_hidden_rooms(names, where):
    assert replay._where(names) == where
