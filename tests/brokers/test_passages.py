"""A session goes from the rooms of one process to those of another: what it gets has no gap, no double, one order."""

import itertools
import threading

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.redis_proxy import Proxy
from tests.room_worlds import Member, RedisWorld
from wsthreads.brokers.messages import Broadcast, Close
from wsthreads.brokers.missed_messages import Gap, Missed, in_order, replay_for
from wsthreads.brokers.passages import Passages
from wsthreads.brokers.positions import Position
from wsthreads.brokers.session_state import PresenceState
from wsthreads.errors import BrokerError
from wsthreads.protocol.frames import message_frame
from wsthreads.rooms.names import SESSIONS_ROOM

MANY = 2**20


@pytest.fixture
def world(redis):
    world = RedisWorld(redis.url)
    yield world
    for rooms in world.all_rooms:
        rooms._check()
        assert not rooms._seats
    world.end()


def text_of(frame):
    size = {126: 4, 127: 10}.get(frame[1], 2)
    return frame[size:].decode()


class Traveller:
    """One session that moves, and all that it has got so far."""

    def __init__(self, world, *rooms, user=None):
        self.world, self.user = world, user
        self.place = 0
        self.member = world.member(*rooms, of=world.all_rooms[0], user=user)
        self.id = self.member.session.id
        self.got = []

    @property
    def rooms(self):
        return self.world.all_rooms[self.place]

    @property
    def passages(self):
        return Passages(self.rooms, self.world.links[self.place])

    def leave(self):
        """Where it stands. What it gets afterwards is not for it."""
        outbox, passages = self.member.outbox, self.passages
        positions = passages.cut(self.member.session, lambda: outbox.append(message_frame("cut")), DEADLINE_S)
        assert positions is not None
        outbox.flush()
        self.world._by_id.pop(self.id, None)
        passages.forget(self.member.session)
        self.got += self.member.receive_until("cut")[:-1]
        return positions

    def arrive(self, positions, place=None, max_bytes=MANY, timeout_s=DEADLINE_S):
        self.place = 1 - self.place if place is None else place
        member = Member(self.rooms, self.world.flusher, self.world.session_class, session_id=self.id)
        member.session._user = self.user
        self.world.members.append(member)
        replay = self.passages.enter(
            member.session,
            positions,
            on_entered=lambda: self.world._by_id.update({self.id: member.session}),
            max_bytes=max_bytes,
            timeout_s=timeout_s,
        )
        self.member = member
        self.got += map(text_of, replay.frames)
        return replay

    def move(self):
        self.arrive(self.leave())

    def rest(self):
        """All that it has got until now."""
        self.member.session.send("end")
        self.got += self.member.receive_until("end")[:-1]
        return self.got


def everybody_has(world, room, text):
    """Broadcast, and wait until all processes have delivered it."""
    observers = [world.member(room, of=rooms) for rooms in world.all_rooms]
    world.rooms.room(room).broadcast(text)
    for observer in observers:
        observer.receive_until(text)


def test_what_is_broadcast_before_on_the_way_and_after_arrives_once_and_in_order(world):
    ann = Traveller(world, "lobby")
    everybody_has(world, "lobby", "before")
    positions = ann.leave()
    for text in ("one", "two"):
        everybody_has(world, "lobby", text)
    ann.arrive(positions)
    everybody_has(world, "lobby", "after")
    assert ann.rest() == ["before", "one", "two", "after"]


def test_a_process_without_members_of_the_room_reads_what_was_missed(world):
    ann = Traveller(world, "lobby")
    positions = ann.leave()
    for text in ("one", "two"):
        world.rooms.room("lobby").broadcast(text)
    ann.arrive(positions)
    world.rooms.room("lobby").broadcast("three")
    wait_until(lambda: world.links[0].waiting() == 0, "the last broadcast")
    everybody_has(world, "lobby", "four")
    assert ann.rest() == ["one", "two", "three", "four"]


def test_a_message_that_excludes_the_session_is_left_out_of_what_it_missed(world):
    ann = Traveller(world, "lobby")
    positions = ann.leave()
    world.links[0].publish("/ws/test", "lobby", message_frame("not for ann"), ann.member.session)
    everybody_has(world, "lobby", "for all")
    ann.arrive(positions)
    assert ann.rest() == ["for all"]


def test_messages_for_the_session_alone_and_for_its_user_reach_it_on_its_way(world, redis):
    ann = Traveller(world, "lobby", user="ann")
    positions = ann.leave()
    for n, rooms in enumerate(world.all_rooms):
        assert rooms.directory.send_to_session(ann.id, f"alone {n}")
        assert rooms.directory.send_to_session("another", f"to another {n}")
        rooms.directory.send_to_user("ann", message_frame(f"user {n}"))
        wait_until(lambda link=world.links[n]: link.waiting() == 0, "the messages at Redis")
        next_millisecond(redis)
    ann.arrive(positions)
    assert ann.rest() == ["alone 0", "user 0", "alone 1", "user 1"]


def next_millisecond(redis):
    """Wait until Redis counts another one: messages of different senders have an order by that alone."""
    before = milliseconds(redis)
    wait_until(lambda: milliseconds(redis) > before, "the next millisecond")


def milliseconds(redis):
    seconds, microseconds = redis.client.time()
    return seconds * 1000 + microseconds // 1000


@pytest.mark.parametrize("rooms", list(itertools.permutations(["a", "b", "c"])))
def test_of_what_redis_got_in_one_millisecond_a_close_is_the_last_but_for_what_its_sender_sent_behind_it(rooms):
    position = Position(b"epoch", 1, b"7-0")
    messages = {
        "a": Missed("a", position, Close(b"one", 5, None, 4001, "go", 0.0)),
        "b": Missed("b", position, Broadcast(b"one", 6, None, message_frame("behind"))),
        "c": Missed("c", position, Broadcast(b"two", 9, None, message_frame("before"))),
    }
    ordered = in_order([[messages[room]] for room in rooms])
    assert [missed.name for missed in ordered] == ["c", "a", "b"]
    replay = replay_for("ann", ordered)
    assert ([text_of(frame) for frame in replay.frames], replay.ending) == (["before"], (4001, "go"))


@pytest.mark.parametrize("whom", ["session", "user", "room"])
def test_a_close_on_the_way_is_found_and_what_comes_behind_it_is_not_for_the_session(world, redis, whom):
    ann = Traveller(world, "lobby", user="ann")
    positions = ann.leave()
    directory = world.all_rooms[1].directory
    everybody_has(world, "lobby", "before")
    if whom == "session":
        directory.close_session(ann.id, 4001, "go")
    elif whom == "user":
        directory.close_user("ann", 4001, "go", 0.0)
    else:
        directory.close_room("lobby", 4001, "go")
    wait_until(lambda: world.links[1].waiting() == 0, "the close at Redis")
    next_millisecond(redis)
    everybody_has(world, "lobby", "behind")
    replay = ann.arrive(positions)
    assert [text_of(frame) for frame in replay.frames] == ["before"]
    assert replay.ending == (4001, "go")


def test_a_close_before_the_session_joined_is_not_for_it(world):
    observer = world.member("lobby", of=world.all_rooms[0])
    world.all_rooms[1].directory.close_room("lobby", 4001, "go")
    wait_until(lambda: observer.channel.ending is not None, "the close")
    ann = Traveller(world, "lobby")
    assert ann.arrive(ann.leave()).ending is None


def test_sessions_that_move_amid_messages_to_several_rooms_get_each_once_in_the_order_of_each_sender(world):
    stopping = threading.Event()
    travellers = [Traveller(world, "red", "blue", user=f"user-{n}") for n in range(3)]
    rooms = world.all_rooms

    def speak(n):
        red, blue = rooms[n].room("red"), rooms[n].room("blue")
        for number in itertools.count():
            if stopping.wait(0.0005):
                break
            (red if number % 3 else blue).broadcast(f"{n} {number}")
            sent[n] = number

    sent = {}
    speakers = [threading.Thread(target=speak, args=(n,), daemon=True) for n in range(2)]
    for speaker in speakers:
        speaker.start()
    for _ in range(15):
        for traveller in travellers:
            traveller.move()
    stopping.set()
    for speaker in speakers:
        speaker.join(DEADLINE_S)
    everybody_has(world, "red", "last")
    everybody_has(world, "blue", "really last")
    for traveller in travellers:
        heard = traveller.rest()
        for n in range(2):
            numbers = [int(text.split()[1]) for text in heard if text.startswith(f"{n} ")]
            assert numbers == list(range(numbers[0], sent[n] + 1))


def test_what_another_thread_sends_to_a_session_that_is_leaving_is_not_lost(world):
    ann = Traveller(world, "lobby")
    session, sent, stopping = ann.member.session, [], threading.Event()

    def talk():
        for number in itertools.count():
            if stopping.wait(0.001):  # the log keeps no more than 10,000 messages
                break
            if not session.send(f"{number}"):
                break
            sent.append(f"{number}")

    talker = threading.Thread(target=talk, daemon=True)
    talker.start()
    wait_until(lambda: len(sent) > 20, "the first messages")
    positions = ann.leave()
    stopping.set()
    talker.join(DEADLINE_S)
    wait_until(lambda: world.links[0].waiting() == 0, "the messages at Redis")
    ann.arrive(positions)
    everybody_has(world, "lobby", "last")
    assert ann.rest() == [*sent, "last"]


def test_a_log_that_no_longer_has_everything_is_a_gap_and_the_session_is_in_no_room(redis, world):
    ann = Traveller(world, "lobby")
    everybody_has(world, "lobby", "one")
    positions = ann.leave()
    for text in ("two", "three"):
        everybody_has(world, "lobby", text)
    log = world.links[0]._keys.address("/ws/test", "lobby").log
    redis.client.xtrim(log, maxlen=1, approximate=False)
    with pytest.raises(Gap):
        ann.arrive(positions)
    assert world.all_rooms[1].count_here("lobby") == 3  # the observers
    assert not world.members[-1].session._joined


def test_more_than_max_bytes_missed_is_a_gap(world):
    ann = Traveller(world, "lobby")
    positions = ann.leave()
    everybody_has(world, "lobby", "x" * 1000)
    with pytest.raises(Gap, match="more than 900 bytes"):
        ann.arrive(positions, max_bytes=900)


def test_a_redis_that_lost_its_data_does_not_pass_for_the_log_that_the_session_has_left(redis, world):
    ann = Traveller(world, "lobby")
    everybody_has(world, "lobby", "one")
    positions = ann.leave()
    redis.client.flushall()
    everybody_has(world, "lobby", "two")
    with pytest.raises(Gap):
        ann.arrive(positions)


def test_a_process_that_is_behind_is_waited_for(redis):
    with Proxy(redis.port) as proxy:
        worlds = [RedisWorld(url, processes=1) for url in (redis.url, proxy.url)]
        try:
            ahead, behind = worlds
            witness = behind.member("lobby")
            ann = Traveller(ahead, "lobby")
            proxy.cut()
            ahead.rooms.room("lobby").broadcast("one")
            assert ann.member.receive(1) == ["one"]
            ann.got.append("one")
            positions = ann.leave()
            ann.world = behind
            arriving = threading.Thread(target=ann.arrive, args=(positions, 0), daemon=True)
            arriving.start()
            proxy.heal()
            arriving.join(DEADLINE_S)
            behind.rooms.room("lobby").broadcast("two")
            assert witness.receive(2) == ["one", "two"]
            assert ann.rest() == ["one", "two"]
        finally:
            for world in worlds:
                world.end()


def test_without_redis_nobody_leaves_and_nobody_arrives(redis, world):
    ann = Traveller(world, "lobby")
    positions = ann.leave()
    bob = Traveller(world, "lobby")
    redis.kill()
    session = bob.member.session
    with pytest.raises(BrokerError):
        bob.passages.cut(session, lambda: None, 0.5)
    bob.passages.stay(session)
    assert session._joined == {"lobby"}
    with pytest.raises(BrokerError):
        ann.arrive(positions, timeout_s=0.5)
    assert not world.members[-1].session._joined


def test_the_presence_goes_with_the_session_and_nobody_is_told_of_a_leave(world):
    rosters = [
        rooms.use_roster(
            timers=world.flusher,
            report=lambda name, changes: None,
            wants_reports=lambda: False,
            count=lambda name: None,
            interval_s=0.01,
            grace_s=10.0,
            max_value_bytes=1000,
        )
        for rooms in world.all_rooms
    ]
    witnesses = [world.member("lobby", of=rooms) for rooms in world.all_rooms]
    ann = Traveller(world, "lobby", user="ann")
    room = ann.member.session.room("lobby")
    room.set_presence({"mood": "good"})
    wait_until(lambda: rosters[1].persons("lobby"), "the presence in the other process")
    presences = ann.passages.presences(ann.member.session)
    assert presences["lobby"].value == '{"mood":"good"}'
    ann.arrive(ann.leave())
    ann.passages.take_presences(ann.member.session, presences)
    for roster in rosters:
        wait_until(lambda roster=roster: [each.sessions for each in roster.persons("lobby")] == [1], "one session")
    since = {person.since for roster in rosters for person in roster.persons("lobby")}
    assert since == {presences["lobby"].since}
    hash_of = world.links[0]._keys.address("/ws/test", "lobby").presence

    def sessions():
        return [field.split()[0] for field in world.broker._client.hgetall(hash_of) if b" " in field]

    wait_until(lambda: sessions() == [world.links[1].process.encode()], "only the new process has it")
    assert witnesses
    assert isinstance(presences["lobby"], PresenceState)
    assert SESSIONS_ROOM not in presences
