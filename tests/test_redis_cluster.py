"""Rooms over a Redis Cluster: three real nodes, which share the hash slots."""

import contextlib
import os
import threading

import pytest
import redis
from redis.cluster import ClusterNode

from tests.programs import DEADLINE_S, wait_until
from tests.redis_server import RedisServer, free_port
from tests.room_worlds import RedisWorld
from wsthreads import BrokerError, RedisBroker
from wsthreads.brokers import link, turns

SLOTS = 16384


@pytest.fixture(scope="module")
def nodes():
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(RedisServer(*_options(port), port=port)) for port in _ports(3)]
        share = -(-SLOTS // len(nodes))
        for n, node in enumerate(nodes):
            node.client.execute_command("CLUSTER", "ADDSLOTS", *range(n * share, min((n + 1) * share, SLOTS)))
            node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        wait_until(lambda: all(_is_complete(node) for node in nodes), "the cluster's being complete")
        yield nodes


def _ports(count):
    """Their other port, for each other, is 10,000 higher."""
    ports = []
    while len(ports) < count:
        port = free_port()
        ports += [port] if port < 55_000 and port not in ports else []
    return ports


def _options(port):
    return ["--port", str(port), "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]


def _is_complete(node):
    info = node.client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"


@pytest.fixture
def world(nodes, monkeypatch):
    monkeypatch.setattr(turns, "LONGEST_S", 1000.0)  # so that nothing goes on only because it has waited enough
    monkeypatch.setattr(link, "WAIT_S", 1000.0)
    client = redis.RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", nodes[0].port)], socket_timeout=3)
    world = RedisWorld(client, prefix=f"cluster-{os.getpid()}")
    yield world
    world.end()


def test_rooms_work_and_are_spread_over_the_nodes(nodes, world):
    names = [f"room {n}" for n in range(30)]
    a, b = world.member(*names), world.member(*names)
    for name in names:
        wait_until(lambda name=name: a.session.room(name).members() == 2, "both are counted")
        a.session.room(name).broadcast(f"to {name}")
        assert a.receive(1) == b.receive(1) == [f"to {name}"]
    for node in nodes:
        assert len(node.keys("*members*")) > 0, "each node has some rooms"
    assert world.broker.room("/ws/test", "room 1").members() == 2
    world.broker.room("/ws/test", "room 1").broadcast("from outside")
    assert a.receive(1) == b.receive(1) == ["from outside"]


def test_all_see_one_order(world):
    members = [world.member("lobby") for _ in range(6)]
    each = 100

    def broadcast(n):
        for k in range(each):
            members[n].session.room("lobby").broadcast(f"{n} {k}")

    senders = [threading.Thread(target=broadcast, args=(n,)) for n in range(4)]
    for sender in senders:
        sender.start()
    seen = [member.receive(4 * each) for member in members]
    for sender in senders:
        sender.join(DEADLINE_S)
    assert all(order == seen[0] for order in seen)


def test_broadcast_and_send_keep_their_order(world):
    a = world.member("one", "two")
    for n in range(50):
        a.session.room("one").broadcast(f"{n} a")
        a.session.send(f"{n} b")
    assert a.receive(100) == [f"{n} {which}" for n in range(50) for which in "ab"]


def test_a_url_of_a_node_is_told_to_be_of_a_cluster(nodes, caplog):
    """A cluster needs another client."""
    with pytest.raises(BrokerError, match=r"a node of a Redis Cluster, .* use RedisBroker\(redis\.RedisCluster\("):
        for n in range(30):  # some rooms are this node's own
            RedisBroker(nodes[0].url).room("/ws/test", f"room {n}").broadcast("x")
    world = RedisWorld(nodes[0].url, processes=1)
    for n in range(30):
        world.rooms.room(f"room {n}").broadcast("x")
    wait_until(lambda: "it is a node of a Redis Cluster" in caplog.text, "a line in the log")
    world.end()
