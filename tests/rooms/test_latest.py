"""Messages with a key, to the members of rooms, to users and to sessions: in one process, and joined by Redis."""

import random

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.room_worlds import RedisWorld, World, be_patient
from tests.wire import run_all
from wsthreads import UsageError
from wsthreads.protocol.frames import encode_frame, message_frame
from wsthreads.rooms.history import Limits

HISTORY = Limits(100, 300.0, 2**20)


@pytest.fixture(params=["local", "redis"])
def world(request):
    if request.param == "local":
        world = World(HISTORY)
    else:
        be_patient(request.getfixturevalue("monkeypatch"))
        prefix = f"latest-{random.randrange(2**32)}"
        world = RedisWorld(request.getfixturevalue("redis_server").url, prefix=prefix, history=HISTORY)
    yield world
    world.end()


def fill(member):
    """Send until the kernel has no more room for a member, so that what follows waits."""
    while not member.outbox.is_blocked:
        member.outbox.append(encode_frame(1, b"x" * 65536))
        member.outbox.flush()


def keyed_texts(member):
    """The messages that wait for a member."""
    with member.outbox._lock:
        member.outbox._check()
        backlog = member.outbox._backlog
        pieces = [] if backlog is None else list(backlog.pieces)
    return [bytes(piece[2:]).decode() for piece in pieces if 0 < len(piece) < 100]


def assert_waiting(member, *texts):
    wait_until(lambda: keyed_texts(member) == list(texts), f"{texts}, and not {keyed_texts(member)}")


def test_a_broadcast_replaces_one_with_its_key_for_a_slow_member_and_a_quick_one_gets_both(world):
    slow, quick = world.member("lobby"), world.member("lobby")
    fill(slow)
    room = world.rooms.room("lobby")
    for text, key in [("a1", "a"), ("b1", "b"), ("plain", None), ("a2", "a"), ("dropped", None)]:
        room.broadcast(text, latest=key, keep=text != "dropped")
    assert_waiting(slow, "b1", "plain", "a2", "dropped")
    assert quick.receive(5) == ["a1", "b1", "plain", "a2", "dropped"]
    assert slow.outbox.latest_replaced == 1
    assert quick.outbox.latest_replaced == 0


def test_a_slow_member_under_10_000_broadcasts_of_100_keys_has_the_last_of_each(world):
    """Its outbox never holds more than 100 of them, and all other messages, in order; the others get everything."""
    total, keys, pace = 10_000, 100, 100
    slow, quick, third = [world.member("lobby") for _ in range(3)]
    fill(slow)
    room, most = world.rooms.room("lobby"), 0
    got, again = [], []

    def broadcast():
        nonlocal most
        for n in range(total):
            room.broadcast(f"{n}", latest=f"key {n % keys}")
            if n % 1_000 == 0:
                room.broadcast(f"plain {n}")
            if n % pace == pace - 1:
                got.extend(quick.receive_until(f"{n}"))
                again.extend(third.receive_until(f"{n}"))
                most = max(most, sum(text.isdigit() for text in keyed_texts(slow)))

    run_all(broadcast)
    expected = [text for n in range(total) for text in [f"{n}", f"plain {n}"][: 1 + (n % 1_000 == 0)]]
    assert got == again == expected
    assert most <= keys
    plain = [f"plain {n}" for n in range(0, total, 1_000)]
    assert_waiting(slow, *plain[:-1], *expected[-keys - 1 :] if expected[-keys - 1] == plain[-1] else [
        *plain[-1:], *expected[-keys:]
    ])  # fmt: skip
    assert slow.outbox.latest_replaced == total - keys
    texts = slow.receive_until(f"{total - 1}")
    assert [text for text in texts if text.isdigit()] == [f"{n}" for n in range(total - keys, total)]


def test_the_same_key_in_two_rooms_of_a_user_and_of_a_session_is_four_keys(world):
    slow, quick = world.member("one", "two", user="ann"), world.member("one", "two", user="ann")
    fill(slow)
    for n in (1, 2):
        for name in ("one", "two"):
            world.rooms.room(name).broadcast(f"{name} {n}", latest="k")
            assert quick.receive(1) == [f"{name} {n}"]  # the order between two rooms is nobody's promise over Redis
        world.rooms.directory.send_to_user("ann", message_frame(f"ann {n}", latest="k"))
        assert quick.receive(1) == [f"ann {n}"]
        slow.session.send(f"session {n}", latest="k")
    assert_waiting(slow, "one 2", "two 2", "ann 2", "session 2")


def test_a_session_is_sent_to_by_its_id_from_anywhere(world):
    slow, quick = [world.member(of=world.all_rooms[-1]) for _ in range(2)]
    fill(slow)
    for n in range(3):
        assert world.rooms.directory.send_to_session(slow.session.id, f"{n}", "k")
        assert world.rooms.directory.send_to_session(quick.session.id, f"{n}", "k")
    assert quick.receive(3) == ["0", "1", "2"]
    assert_waiting(slow, "2")


def test_who_is_excluded_keeps_what_waits_for_it(world):
    slow, quick = world.member("lobby"), world.member("lobby")
    fill(slow)
    slow.session.room("lobby").broadcast("first", latest="k")
    slow.session.room("lobby").broadcast_except("not for me", latest="k")
    assert quick.receive(2) == ["first", "not for me"]
    assert_waiting(slow, "first")


def test_a_message_without_a_key_replaces_none(world):
    slow, quick = world.member("lobby"), world.member("lobby")
    fill(slow)
    room = world.rooms.room("lobby")
    room.broadcast("1", latest="k")
    room.broadcast("2")
    room.broadcast("3", keep=False)
    assert quick.receive(3) == ["1", "2", "3"]
    assert_waiting(slow, "1", "2", "3")


@pytest.mark.parametrize("key", ["\0", "\n", " =-", "ä" * 256, "\ud800", "\U0001f600", "-", "=1"])
def test_a_key_may_be_any_text(world, key):
    slow, quick = world.member("lobby"), world.member("lobby")
    fill(slow)
    room = world.rooms.room("lobby")
    room.broadcast("old", latest=key)
    room.broadcast("other", latest=key + "x" if len(key) < 256 else "x")
    room.broadcast("new", latest=key)
    assert quick.receive(3) == ["old", "other", "new"]
    assert_waiting(slow, "other", "new")


def test_a_wrong_key_is_an_error_and_nothing_is_sent(world):
    member = world.member("lobby")
    room = member.session.room("lobby")
    for send in (room.broadcast, room.broadcast_except, member.session.send):
        for key in ("", "k" * 257, 7, b"k"):
            with pytest.raises(UsageError, match="latest must"):
                send("no", latest=key)
    with pytest.raises(UsageError, match="keep must be True or False, not 'no'"):
        room.broadcast("no", keep="no")
    member.session.send("end")
    assert member.receive(1) == ["end"]


def test_what_a_call_sends_and_broadcasts_to_a_slow_member_goes_in_the_order_of_the_calls(world):
    """But for what was replaced."""
    slow = world.member("lobby")
    fill(slow)
    room = slow.session.room("lobby")
    for n in range(50):
        room.broadcast(f"room {n}", latest="k")
        slow.session.send(f"session {n}", latest="k")
        slow.session.send(f"plain {n}")
    assert_waiting(slow, *(f"plain {n}" for n in range(49)), "room 49", "session 49", "plain 49")
    assert slow.outbox.wait_sent(0) is False
    found = []
    run_all(lambda: found.extend(slow.receive_until("plain 49")))
    assert [text for text in found if len(text) < 100][-3:] == ["room 49", "session 49", "plain 49"]
    assert slow.outbox.wait_sent(DEADLINE_S)


def test_nothing_of_a_replay_is_replaced(world):
    """A joiner that is slow gets the whole history, whatever keys its messages had, and then only the last of each."""
    room, slow, quick = world.rooms.room("lobby"), world.member(), world.member("lobby")
    for n in range(3):
        room.broadcast(f"old {n}", latest="k")
    room.broadcast("no", latest="k", keep=False)
    assert quick.receive(4) == ["old 0", "old 1", "old 2", "no"]
    fill(slow)
    assert slow.session.room("lobby").join(history=50).complete
    for n in range(3):
        room.broadcast(f"new {n}", latest="k")
    room.broadcast("end")
    assert_waiting(slow, "old 0", "old 1", "old 2", "new 2", "end")
    assert room.history(50) == [*(f"old {n}" for n in range(3)), *(f"new {n}" for n in range(3)), "end"]


def test_without_a_connection_the_last_message_with_a_key_waits(world):
    away, quick = world.member("lobby"), world.member("lobby")
    away.channel.keep()
    room = world.rooms.room("lobby")
    room.broadcast("1", latest="k")
    assert away.receive(1) == quick.receive(1) == ["1"]
    away.leave()
    for text in ("2", "3", "4"):
        room.broadcast(text, latest="k")
    assert quick.receive(3) == ["2", "3", "4"]
    wait_until(lambda: away.outbox.latest_replaced == 2, "the last one")
    away.come_back(0)
    assert away.receive(2) == ["1", "4"]
