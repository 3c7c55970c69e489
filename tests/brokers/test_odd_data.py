"""Odd data in Redis, by another program or a fault: it is refused, and nothing else suffers."""

import contextlib
import json
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.owned_worlds import Owned
from tests.programs import wait_until
from tests.room_worlds import RedisWorld
from wsthreads import BrokerError
from wsthreads.brokers import arrivals, messages, posts, stored_history
from wsthreads.brokers.directory import sessions_in
from wsthreads.brokers.positions import parse_published
from wsthreads.brokers.questions import Questions, parse_answer
from wsthreads.brokers.scripts import PUBLISH
from wsthreads.rooms.history import Limits
from wsthreads.rooms.json_text import MAX_DEPTH, is_json_text, json_text, value_of

NOW_MS = 1_700_000_000_000
HUGE = "1" + "0" * 400

#: JSON texts of values that few expect.
VALUES = some.sampled_from(
    [
        *("0", "-1", "1.5", "1e300", "1e400", "NaN", "Infinity", "true", "null", "[]", "{}", '""', '"\\ud800"', '"x"'),
        *(HUGE, "9" * 5000, str(2**53), str(2**63), "[" * 100_000, "[" * 70 + "]" * 70, '{"a":1,"b":2}', " 1", "1 x"),
    ]
)


def replaced(*parts):
    """The parts, one or two of which are replaced by odd values, or are missing."""

    def mix(changes):
        mixed = list(parts)
        for at, value in changes:
            mixed[at] = value
        return [part for part in mixed if part is not None]

    change = some.tuples(some.integers(0, len(parts) - 1), some.none() | VALUES)
    return some.lists(change, max_size=2).map(mix)


def listed(*parts):
    return replaced(*parts).map(lambda mixed: f"[{','.join(mixed)}]".encode())


CLOSES = listed("4000", '"bye"', "60")
PRESENCES = some.tuples(listed("3", "3", "1.5", '"process"', '"ann"', "null"), VALUES.map(str.encode) | some.just(b""))
PAYLOADS = CLOSES | PRESENCES.map(b"\n".join) | VALUES.map(str.encode) | some.binary(max_size=30)
MESSAGES = some.tuples(some.sampled_from([b"t", b"T", b"c", b"p", b"p", b"t=3", b"B"]), PAYLOADS).map(
    lambda found: b"4 me 7 you %b\n%b" % found
)


def check_presence(change):
    if change.value is not None:
        assert value_of(change.value) == json.loads(change.value)
        assert datetime.fromtimestamp(change.since, timezone.utc)
        assert change.lost_s is None or 0 <= change.lost_s < 1e8
        assert change.process.isascii()
        assert change.process


@given(MESSAGES)
def test_a_message_is_right_or_refused(data):
    try:
        found = messages.decode(data)
    except BrokerError:
        return
    if isinstance(found, messages.PresenceChange):
        check_presence(found)
    elif isinstance(found, messages.Close):
        assert int(found.ban_s * 1000) < 1e12
    assert arrivals.aged(found, b"1700000000000-0", NOW_MS)


@given(
    some.lists(
        some.tuples(
            some.sampled_from([b"process you", b"process", b"process \xff", b"pro\xffcess you", b" ", b"p you you"]),
            some.tuples(VALUES.map(str.encode) | some.just(b"1700000001000"), PRESENCES.map(b"\n".join)).map(b" ".join)
            | some.binary(max_size=20),
        ),
        max_size=3,
    )
)
def test_stored_presences_are_right_or_refused(stored):
    present, malformed = messages.parse_presences(NOW_MS, [part for pair in stored for part in pair])
    assert len(present) + len(malformed) <= len(stored)
    for change in present:
        check_presence(change)


@given(listed("4000", '"bye"') | PAYLOADS, some.integers(-2, 10**20))
def test_a_stored_ban_is_right_or_none(value, left_ms):
    found = messages.parse_ban(value, left_ms)
    assert found is None or int(found[2] * 1000) < 1e12


ENTRIES = some.tuples(
    replaced("1", "1700000000000-0", "0", "0-0", "5").map(lambda parts: " ".join(parts).encode()), MESSAGES
).map(b" ".join)


@given(
    some.sampled_from([b"", b"2", b"2 2", b"1 1700000000000-0", b"x y", b"1 \xff", b"1 2 3", HUGE.encode() + b" 0-0"]),
    some.lists(ENTRIES | some.binary(max_size=20), max_size=3),
)
def test_a_stored_history_is_right_or_left_out(mark, entries):
    malformed = []
    found = stored_history.parse_kept(b"epoch", mark, entries, NOW_MS, malformed.append)
    assert len(found.entries) + len(malformed) <= len(entries) + 1
    assert all(number < 1e16 and age_s < 1e14 for number, _, age_s, _, _ in found.at(0.0))


@given(replaced("100", "300000", "1048576").map(lambda parts: " ".join(parts).encode()) | some.binary(max_size=20))
def test_stored_limits_are_right_or_refused(text):
    with contextlib.suppress(BrokerError):
        stored_history.parse_limits(text)


PIECES = [b"+", b"3:abc", b"0:", b"-5:", b":", b"12", b"99999:", HUGE.encode(), b"_1:"]


@given(some.lists(some.sampled_from(PIECES), max_size=9))
def test_the_stock_of_a_room_is_right_or_refused(pieces):
    with contextlib.suppress(ValueError):
        arrivals.parse_stock(b"+" + b"".join(pieces))


@given(listed('["1",""]', '["2","lost"]') | PAYLOADS)
def test_outcomes_are_right_or_refused(data):
    try:
        found = posts.parse_outcomes(data)
    except ValueError:
        return
    assert all(isinstance(number, int) and isinstance(text, str) for number, text in found)


@given(some.tuples(listed('"id"', '"ann"') | PAYLOADS, PAYLOADS))
def test_a_post_is_right_or_none(parts):
    post = posts.parse_entry(b"channel 1 1700000000000\n" + b"\n".join(parts), print)
    assert post is None or value_of(post.value) == json.loads(post.value)


@given(
    PAYLOADS
    | replaced('"question":"a"', '"process":"p"', '"kind":"k"', '"host":"h"', '"value":[["id",' + HUGE + "]]").map(
        lambda parts: f"{{{','.join(parts)}}}".encode()
    )
)
def test_questions_and_answers_are_right_or_refused(data):
    malformed = []
    questions = Questions(
        "me", {}, publish=print, reply=lambda *_: None, patience_s=float, on_malformed=malformed.append
    )
    questions.take_question(data)
    questions.take_answer(data)
    answer = parse_answer(data)
    assert (answer is None) <= bool(malformed)
    if answer is not None:
        sessions_in(answer)
    questions.stop(5)


@given(
    replaced("epoch", " ", "7", " ", "1-1", " ", "0-0", "\n", "data").map(lambda parts: "".join(parts).encode())
    | some.binary(max_size=40)
)
def test_a_published_position_is_right_or_none(data):
    found = parse_published(data)
    assert found is None or found[0].number < 1e16


GIVEN = some.recursive(
    some.none() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
)


@given(GIVEN)
def test_each_value_that_handlers_give_is_taken(value):
    assert is_json_text(json_text(value, what="x", max_bytes=10**6, setting="x", error=ValueError))


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1 x", "NaN", "[Infinity]", "[" * (MAX_DEPTH + 1) + "]" * 65, "9" * 5000]
)
def test_what_handlers_cannot_give_is_refused(text):
    assert not is_json_text(text)


def _set(key, field, value):
    return lambda client, address: client.hset(getattr(address, key), field, value)


def _head_of_history(at, value):
    def change(client, address):
        parts = client.lindex(address.history, 0).split(b" ", 5)
        parts[at] = value
        client.lset(address.history, 0, b" ".join(parts))

    return change


def _published(session, kind, payload):
    def publish(client, address):
        message = f"4 evil 1 {session} {kind}\n{payload}"
        client.eval(PUBLISH, 2, address.log, address.head, address.channel, "epoch", "evil", 1, message)

    return publish


ODD = {
    "a published close": _published(".", "c", f'[4000,"x",{HUGE}]'),
    "a published presence": _published("abc", "p", f'[1,1,{HUGE},"proc",null,null]\n1'),
    "a published process": _published("abc", "p", '[1,1,1,"\\ud800",null,null]\n1'),
    "a published time": _published("abc", "p", '[1,1,1,"proc",null,1e300]\n1'),
    "a presence": _set("presence", "proc abc", f'0 [1,1,{HUGE},"proc",null,null]\n1'),
    "until when a presence is kept": _set("presence", "proc abc", f'{HUGE} [1,1,1,"proc",null,null]\n1'),
    "no presence": _set("presence", "proc abc", "x"),
    "the members": _set("members", "proc", "x"),
    "the head's epoch": _set("head", "epoch", "\n"),
    "the head's number": _set("head", "number", "x"),
    "the head's number, huge": _set("head", "number", HUGE),
    "the head's id": _set("head", "id", "9" * 30 + "-0"),
    "how long the head is kept": _set("head", "keep_ms", "x"),
    "how many have sent": _set("head", "senders", "x"),
    "the end of the history": _set("head", "kept", "2"),
    "the size of the history": _set("head", "kept_bytes", "x"),
    "the age of the history": _set("head", "kept_from", "x"),
    "an id in the history": _head_of_history(1, HUGE.encode() + b"-0"),
    "a size in the history": _head_of_history(4, b"x"),
    "a close in the history": _head_of_history(5, f'4 evil 1 . c\n[4000,"x",{HUGE}]'.encode()),
    "no message in the history": lambda client, address: client.lset(address.history, 0, "x"),
    "the last fence": _set("lease", "last", HUGE),
    "how many posts are done": _set("lease", "done", "x"),
    "a post": lambda client, address: client.rpush(address.posts, "chan 1 " + "9" * 400 + "\nnull\n1"),
    "a post's value": lambda client, address: client.rpush(address.posts, "chan 1 9999999999999\nnull\n1 x"),
    "the size of attributes": _set("attributes", "size", "x"),
    "a claim on an attribute": _set("attributes", '@"key"', "x"),
    "an attribute": _set("attributes", '"key"', "{"),
}


@pytest.fixture
def world(redis_server):
    redis_server.client.flushall()
    made = RedisWorld(redis_server.url, processes=2, history=Limits(2, 300, 2**20))
    for rooms in made.all_rooms:
        rooms.use_roster(
            timers=made.flusher,
            report=print,
            wants_reports=lambda: False,
            count=lambda name: None,
            interval_s=0.02,
            grace_s=0.0,
            max_value_bytes=1024,
        )
    yield made
    made.end()


@pytest.mark.parametrize("what", ODD)
def test_an_odd_value_of_a_room_disturbs_no_other_room_and_the_room_goes_on(redis_server, world, what):
    """The connections stay; what is lost is what the odd value says."""
    owned = Owned(world)
    first, second = world.all_rooms
    a, b = world.member("game", "other", of=first), world.member("other", of=second)
    for n in range(2):
        first.room("game").broadcast(f"old {n}")
    assert a.receive(2) == ["old 0", "old 1"]
    first.room("game").set_attribute("key", 1)
    owner = owned.owner("game")
    client, address = redis_server.client, world.links[0]._keys.address(world.path, "game")
    client.zadd(world.links[0]._keys.processes(address.shard), {"proc": 9e15})
    connections = [link._reader._connection for link in world.links]

    ODD[what](client, address)

    c = world.member(of=second)
    assert c.session.room("game").join(history=2, presence={"a": 1})
    assert second.room("game").members() == 2
    second.room("game").broadcast("new")
    assert c.receive_until("new")[-1] == "new"
    assert a.receive_until("new")[-1] == "new"
    wait_until(lambda: {"a": 1} in [person.presence for person in first.room("game").presence()], "the presence")
    assert world.broker.room(world.path, "game", history_messages=2).history(2)[-1] == "new"
    second.room("game").set_attribute("key", 2)
    assert first.room("game").update_attribute("key", lambda value: value + 1) == 3
    second.room("game").post("posted")
    wait_until(lambda: "posted" in owner.posted(), "the post")
    c.session.room("game").leave()
    assert [link._reader._connection for link in world.links] == connections
    assert [metrics.snapshot().get("broker_outages") for metrics in world.metrics] == [None, None]
    second.room("other").broadcast("end")
    assert a.receive(1) == b.receive(1) == ["end"]
    owned.end()
