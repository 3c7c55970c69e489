"""Users, single sessions and whole rooms, reached from anywhere: what holds in one process and over a broker."""

import gc
import logging
import random
import threading
import weakref

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.room_worlds import world_of
from tests.wire import run_all
from wsthreads import CloseCodeError, MessageTypeError, Peer, RoomNameError, UsageError, User, UserError
from wsthreads.brokers.rooms import SharedRooms
from wsthreads.rooms.names import SESSIONS_ROOM, is_hidden, user_of, user_room


@pytest.fixture(params=["local", "redis"])
def world(request):
    world = world_of(request)
    yield world
    world.end()


def user(world, name):
    return User(name, world.rooms.directory)


def counts(world, name):
    return sum(counts.snapshot().get(name, 0) for counts in world.counts)


def endings(*members):
    arrive({member.session._rooms for member in members})
    return [member.channel.ending for member in members]


def arrive(all_rooms):
    """What these processes have sent to others has arrived."""
    for rooms in all_rooms:
        if isinstance(rooms, SharedRooms):
            # Who has just begun to listen does not hear the answers to its first question.
            wait_until(lambda link=rooms._link: link.ask_all("nothing", None, 0.5, lambda value: False)[1], "answers")


def test_the_name_of_a_hidden_room():
    assert user_of(user_room("ann")) == "ann"
    assert user_of(SESSIONS_ROOM) is None is user_of("uann")
    assert is_hidden(user_room("ann"))
    assert is_hidden(SESSIONS_ROOM)
    assert not is_hidden("ann")


def test_a_message_to_a_user_reaches_all_sessions_of_the_user_and_no_other(world):
    ann, again, bob = world.member(user="ann"), world.member(user="ann"), world.member(user="bob")
    nobody = world.member()
    user(world, "ann").send("hi")
    user(world, "bob").send(b"end")
    nobody.session.send("end")
    assert ann.receive(1) == again.receive(1) == ["hi"]
    assert bob.receive(1) == nobody.receive(1) == ["end"]


def test_a_message_to_a_user_without_sessions_is_for_nobody(world):
    user(world, "ann").send("hi")
    ann = world.member(user="ann")
    user(world, "ann").send("later")
    assert ann.receive(1) == ["later"]


@pytest.mark.parametrize("run", range(5))
def test_messages_to_users_broadcasts_and_messages_to_sessions_of_one_thread_keep_their_order(world, run):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    anns = [world.member("lobby", "hall", user="ann") for _ in range(4)]

    def talk(sender, rng):
        ways = [
            user(world, "ann").send,
            world.rooms.room("lobby").broadcast,
            world.rooms.room("hall").broadcast,
            lambda text: [Peer(ann.session.id, world.rooms.directory).send(text) for ann in anns],
        ]
        for number in range(200):
            rng.choice(ways)(f"{sender} {number}")

    run_all(*[lambda n=n: talk(n, random.Random(seed + n)) for n in range(3)])
    for ann in anns:
        texts = [text.split() for text in ann.receive(600)]
        for sender in range(3):
            assert [int(number) for who, number in texts if who == f"{sender}"] == list(range(200))


def test_hidden_rooms_are_nowhere_to_be_seen(world):
    anns = [world.member("lobby", user="ann") for _ in range(3)]
    rooms = world.rooms
    user(world, "ann").send("hi")
    assert rooms.names() == ["lobby"]
    here = len(rooms.sessions("lobby"))
    assert rooms.sizes() == {"lobby": here}
    assert rooms.totals() == (1, here, 0, 0)
    assert len(rooms) == 1
    assert anns[0].session.rooms() == ["lobby"]
    assert rooms.users() == {"ann": here}
    for ann in anns:
        ann.session._rooms.leave_all(ann.session)
    assert rooms.totals() == (0, 0, 0, 0)
    assert rooms.users() == {}
    rooms._check()


def test_hidden_rooms_are_no_rooms_of_a_handler(world):
    ann = world.member(user="ann").session
    for name in (user_room("ann"), user_room("bob"), SESSIONS_ROOM, "\0"):
        for handle in (ann.room, world.rooms.room):
            with pytest.raises(RoomNameError, match=r"must not begin with a NUL character, as '\\x00.* does"):
                handle(name)


def test_hidden_rooms_are_not_limited(world):
    world.rooms._max_per_session = 2
    ann = world.member("a", "b", user="ann")
    assert ann.ban is None
    assert ann.session.rooms() == ["a", "b"]
    with pytest.raises(Exception, match="in at most 2 rooms; 'c' is one more"):
        ann.session.room("c").join()


def test_a_kick_closes_all_sessions_of_the_user_and_no_other(world, caplog):
    caplog.set_level(logging.INFO)
    ann, again, bob = world.member(user="ann"), world.member(user="ann"), world.member(user="bob")
    user(world, "ann").close(4001, "sig\nned out")
    assert endings(ann, again, bob) == [(4001, "sig\nned out"), (4001, "sig\nned out"), None]
    here = [2] if len(world.all_rooms) == 1 else [1, 1]
    assert [r.getMessage() for r in caplog.records] == [
        rf"user ann kicked on /ws/test: 4001 'sig\nned out' (sessions closed in this process: {count})"
        for count in here
    ]
    assert caplog.records[0].name == "wsthreads.rooms.directory.kicks"
    user(world, "ann").close(4002, "again")
    assert endings(ann, again) == [(4001, "sig\nned out")] * 2
    assert counts(world, "kicks") == 2
    assert counts(world, "bans") == 0
    assert world.member(user="ann").ban is None


def test_a_ban_is_there_before_the_sessions_are_closed(world, caplog):
    caplog.set_level(logging.INFO)
    ann, seen = world.member(user="ann"), []
    ann.channel.begin_close = lambda code, reason, is_kick: seen.append(world.rooms.directory.ban_of("ann")) or True
    user(world, "ann").close(4001, "bye", ban_s=60)
    assert seen[0][1:] == (4001, "bye")
    assert "user ann banned on /ws/test for 60 s: 4001 bye" in caplog.text
    assert counts(world, "bans") == 1
    arrive(world.all_rooms)
    assert world.member(user="ann").ban[1:] == (4001, "bye")
    assert world.rooms.directory.ban_of("bob") is None


def test_who_joins_during_a_ban_is_told_of_it_afterwards(world):
    """The race: the handshake found no ban, and the kick does not find the session."""
    directory = world.rooms.directory
    join = world.rooms.join

    def slow_join(name, session):
        user(world, "ann").close(4001, "bye", ban_s=60)
        join(name, session)

    world.rooms.join = slow_join
    ann = world.member(user="ann")
    assert ann.ban[1:] == (4001, "bye")
    assert ann.channel.ending is None, "it is for the caller to close it"
    assert directory.sessions_of("ann"), "it was in the room when it asked"


def test_who_joins_before_a_ban_is_closed_by_the_kick(world):
    ann = world.member(user="ann")
    assert ann.ban is None
    user(world, "ann").close(4001, "bye", ban_s=60)
    assert endings(ann) == [(4001, "bye")]


def test_only_open_sessions_count_as_online(world):
    ann = user(world, "ann")
    assert not ann.is_online()
    first, second = world.member(user="ann").session, world.member(user="ann").session
    first.opened_at, second.opened_at = 2.0, 1.0
    assert ann.is_online()
    assert [(s.id, s.since) for s in ann.sessions()] == [(second.id, 1.0), (first.id, 2.0)]
    first.close()
    assert ann.is_online()
    assert [s.id for s in ann.sessions()] == [second.id]
    second.close()
    assert not ann.is_online()
    assert ann.sessions() == []
    assert not user(world, "bob").is_online()


def test_a_peer_is_one_session(world, caplog):
    caplog.set_level(logging.INFO)
    ann, bob = world.member(user="ann"), world.member()
    peer = Peer(bob.session.id, world.rooms.directory)
    assert peer.id == bob.session.id
    assert peer.is_open()
    assert peer.send("hi")
    assert bob.receive(1) == ["hi"]
    peer.close(4001, "bye")
    arrive(world.all_rooms)
    assert not peer.is_open()
    assert peer.send("more") == (len(world.all_rooms) > 1), "it is not known what other processes have"
    assert endings(ann, bob) == [None, (4001, "bye")]
    peer.close(4002)
    assert endings(bob) == [(4001, "bye")]
    assert counts(world, "kicks") == 1
    assert [r.getMessage() for r in caplog.records] == [f"session {peer.id} kicked on /ws/test: 4001 bye"]


def test_a_peer_that_there_never_was_gets_nothing(world):
    peer = Peer("nobody", world.rooms.directory)
    assert not peer.is_open()
    assert peer.send("hi") == (len(world.all_rooms) > 1), "it is not known what other processes have"
    peer.close()


def test_a_room_is_closed_with_all_its_members(world, caplog):
    caplog.set_level(logging.INFO)
    members, other = [world.member("lobby") for _ in range(3)], world.member("hall")
    world.rooms.room("lobby").close(4001, "bye")
    assert endings(*members, other) == [(4001, "bye")] * 3 + [None]
    assert counts(world, "kicks") == 3
    for here in [3] if len(world.all_rooms) == 1 else [2, 1]:
        assert f"room lobby closed on /ws/test: 4001 bye (sessions closed in this process: {here})" in caplog.text
    members[0].session.room("hall").close()
    assert endings(other) == [(1000, "")]


def test_handles_keep_nothing_alive_and_work_for_as_long_as_they_are_kept(world):
    handle, room = user(world, "ann"), world.rooms.room("lobby")
    for number in range(3):
        ann = world.member("lobby", user="ann")
        peer = Peer(ann.session.id, world.rooms.directory)
        handle.send(f"{number}")
        room.broadcast("b")
        assert ann.receive(2) == [f"{number}", "b"]
        ann.session._rooms.leave_all(ann.session)
        ann.channel.begin_close(1000)
        reference = weakref.ref(ann.session)
        world.members.clear()
        ann.end()
        del ann
        gc.collect()
        assert reference() is None
        assert not peer.is_open()
        assert not handle.is_online()
    assert not world.rooms.directory.sessions_of("ann")


@pytest.mark.parametrize("name", ["", "x" * 257, None, 7, b"ann", ["ann"]])
def test_what_is_no_user_is_an_error_that_names_it_and_the_limit(world, name):
    request = world.member().session.request
    attempts = [lambda: user(world, name), lambda: setattr(request, "user", name)]
    for attempt in attempts[: 1 if name is None else 2]:  # a request may have none
        with pytest.raises(UserError) as caught:
            attempt()
        assert "text of 1 to 256 characters, not " in str(caught.value)
        assert f"{name!r:.40}" in str(caught.value)
        assert len(str(caught.value)) < 200
    assert request.user is None


@pytest.mark.parametrize("name", ["x", "x" * 256, "Ünïcode 🐟", "\0", "a\nb", " "])
def test_names_that_a_user_can_have(world, name):
    ann = world.member(user=name)
    assert ann.session.user == name
    user(world, name).send("hi")
    assert ann.receive(1) == ["hi"]
    assert world.rooms.users() == {name: 1}


def test_the_user_of_a_session_is_read_only(world):
    session = world.member(user="ann").session
    with pytest.raises(AttributeError):
        session.user = "bob"
    session.request.user = "bob"
    assert session.user == "ann"
    assert world.member().session.user is None


@pytest.mark.parametrize(
    ("arguments", "options"),
    [((999,), {}), ((1005,), {}), (("1000",), {}), ((1000, "x" * 124), {}), ((1000, 7), {}),
     ((4001, "no"), {"ban_s": -1}), ((999,), {"ban_s": 60}), ((4001,), {"ban_s": "60"})],
)  # fmt: skip
def test_a_kick_that_is_not_valid_does_nothing(world, arguments, options):
    ann = world.member("lobby", user="ann")
    with pytest.raises((CloseCodeError, UserError)):
        user(world, "ann").close(*arguments, **options)
    if not options:
        for handle in (world.rooms.room("lobby"), Peer(ann.session.id, world.rooms.directory)):
            with pytest.raises(CloseCodeError):
                handle.close(*arguments)
    assert endings(ann) == [None]
    assert world.rooms.directory.ban_of("ann") is None
    assert not counts(world, "kicks")


@pytest.mark.parametrize("session_id", [None, 7, b"x", "", "x" * 257])
def test_what_is_no_session_id_is_an_error(world, session_id):
    with pytest.raises(UsageError, match="a session id "):
        Peer(session_id, world.rooms.directory)


@pytest.mark.parametrize("message", [None, 7, ["hi"]])
def test_what_is_no_message_is_an_error_whoever_is_there(world, message):
    ann = world.member(user="ann")
    for send in (
        user(world, "ann").send,
        user(world, "bob").send,
        Peer(ann.session.id, world.rooms.directory).send,
        Peer("nobody", world.rooms.directory).send,
    ):
        with pytest.raises(MessageTypeError):
            send(message)


def test_a_user_with_a_thousand_sessions(world):
    sessions = [world.member(user="ann") for _ in range(100)]
    ids = {ann.session.id for ann in sessions}
    user(world, "ann").send("hi")
    assert {ann.receive(1)[0] for ann in sessions} == {"hi"}
    assert {session.id for session in user(world, "ann").sessions()} == ids
    user(world, "ann").close(4001, ban_s=60)
    assert set(endings(*sessions)) == {(4001, "")}
    assert counts(world, "kicks") == 100


@pytest.mark.parametrize("nth", range(5))
def test_kicks_with_bans_and_sessions_that_come_meanwhile(world, nth):
    """Whoever enters is told of the ban, or closed by the kick; from several threads."""
    entered, has_begun = [], threading.Event()

    def come():
        for number in range(20):
            entered.append(world.member(user="ann"))
            if number == 2:
                has_begun.set()

    def kick():
        assert has_begun.wait(DEADLINE_S)
        user(world, "ann").close(4001, "bye", ban_s=60)

    run_all(come, come, come, kick)
    arrive(world.all_rooms)
    assert all(ann.ban is not None or ann.channel.ending is not None for ann in entered)
