"""What Redis took, and is sent again as its answer was lost: the room's log has it once."""

import pytest

from tests.programs import wait_until
from tests.redis_proxy import Proxy
from tests.room_worlds import RedisWorld
from wsthreads.brokers import messages, scripts
from wsthreads.brokers.keys import MAX_SENDERS, Keys
from wsthreads.protocol.frames import message_frame


@pytest.fixture
def proxy(redis):
    with Proxy(redis.port) as proxy:
        yield proxy


@pytest.fixture
def worlds(redis, proxy):
    """Two processes, of which the first has its Redis behind the proxy."""
    worlds = [RedisWorld(url, processes=1) for url in (f"{proxy.url}?socket_timeout=1000", redis.url)]
    for world in worlds:
        member = world.member("warm up")
        member.session.room("warm up").broadcast("it knows the script")
        assert member.receive(1) == ["it knows the script"]
        member.session.room("warm up").leave()
    yield worlds
    for world in worlds:
        world.end()


def texts(client, address):
    """What the log has."""
    return [fields[b"m"].partition(b"\n")[2].decode() for _, fields in client.xrange(address.log)]


def test_a_process_whose_first_member_joins_before_the_resend_does_not_hear_it(redis, proxy, worlds):
    a, b = worlds[0].member("lobby"), worlds[1].member()
    address = worlds[1].links[0]._keys.address("/ws/test", "lobby")
    proxy.swallow_answers_from(b"first")
    sent = ["first", "second", "third"]
    for text in sent:
        a.session.room("lobby").broadcast(text)
    wait_until(lambda: texts(redis.client, address)[:1] == ["first"], "the broadcast in Redis")
    proxy.await_swallowed()
    b.session.room("lobby").join()
    redis_has = len(texts(redis.client, address))
    b.session.room("lobby").broadcast("between")
    assert b.receive(1) == ["between"]
    proxy.heal()  # the connection is lost before the answer has come
    a.session.room("lobby").broadcast("end")
    before, after = sent[:redis_has], [*sent[redis_has:], "end"]
    assert b.receive_until("end") == after
    assert a.receive_until("end") == [*before, "between", *after]
    assert texts(redis.client, address) == [*before, "between", *after]


def test_a_session_that_leaves_and_joins_before_the_resend_hears_it_once(proxy, worlds):
    a, b = worlds[0].member("lobby"), worlds[1].member("lobby")
    proxy.swallow_answers_from(b"once")
    a.session.room("lobby").broadcast("once")
    assert b.receive(1) == ["once"]
    proxy.await_swallowed()
    b.session.room("lobby").leave()
    b.session.room("lobby").join()
    proxy.heal()
    a.session.room("lobby").broadcast("end")
    assert b.receive_until("end") == ["end"]
    assert a.receive_until("end") == ["once", "end"]


def test_redis_remembers_a_bounded_number_of_senders_and_of_each_the_last_ticket(redis):
    address, senders = Keys("test", 0).address("/ws/test", "lobby"), MAX_SENDERS

    def publish(sender, *tickets):
        arguments = [address.channel, "fresh", sender]
        for ticket in tickets:
            arguments += [ticket, messages.encode_broadcast(sender, ticket, None, message_frame(f"{sender}-{ticket}"))]
        redis.client.eval(scripts.PUBLISH, 2, address.log, address.head, *arguments)

    expected = []
    for n in range(3 * senders):
        publish(f"s{n}", n)
        publish("always", 2 * n, 2 * n + 1)
        expected += [f"s{n}-{n}", f"always-{2 * n}", f"always-{2 * n + 1}"]
    assert redis.client.hlen(address.head) <= senders + len({"epoch", "number", "id", "senders"})
    last = 3 * senders - 1
    publish("always", 2 * last, 2 * last + 1, 2 * last + 2)
    for n in range(last - senders // 2 + 2, last + 1):
        publish(f"s{n}", n)
    assert texts(redis.client, address) == [*expected, f"always-{2 * last + 2}"]
    assert int(redis.client.hget(address.head, "number")) == len(expected) + 1
