"""Rooms over a Redis Cluster: three real nodes, which share the hash slots."""

import contextlib
import os
import threading
import time
from statistics import median

import pytest
import redis
from redis.cluster import ClusterNode

from tests.brokers.handover_world import Client, HandoverWorld
from tests.brokers.test_shared_presence import Worker
from tests.ports import free_port
from tests.programs import DEADLINE_S, wait_until
from tests.redis_server import RedisServer
from tests.room_worlds import RedisWorld
from wsthreads import BrokerError, Peer, RedisBroker, User
from wsthreads.brokers.availability import WAIT_S
from wsthreads.rooms.names import user_room

SLOTS = 16384


@pytest.fixture(scope="module")
def nodes():
    with contextlib.ExitStack() as stack:
        ports = [free_port() for _ in range(3)]  # their other ports, for each other, are 10,000 higher
        nodes = [stack.enter_context(RedisServer(*_options(port), port=port)) for port in ports]
        share = -(-SLOTS // len(nodes))
        for n, node in enumerate(nodes):
            node.client.execute_command("CLUSTER", "ADDSLOTS", *range(n * share, min((n + 1) * share, SLOTS)))
            node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        wait_until(lambda: all(_is_complete(node) for node in nodes), "the cluster's being complete")
        yield nodes


def _options(port):
    return ["--port", str(port), "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
            "--cluster-require-full-coverage", "no"]  # fmt: skip


def _is_complete(node):
    info = node.client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"


@pytest.fixture
def world(nodes):
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


def test_attributes_and_seats_are_on_the_node_of_their_room(world):
    for n in range(12):
        name = f"room {n}"
        members = [world.member() for _ in range(4)]
        joined = [member.session.room(name).join(max_members=2).joined for member in members]
        assert joined == [True, True, False, False]
        rooms = [member.session.room(name) for member in members]
        rooms[0].set_attribute("n", n)
        assert rooms[3].update_attribute("n", lambda value: value + 1) == n + 1
        assert world.broker.room("/ws/test", name).update_attribute("n", lambda value: value + 1) == n + 2
        assert rooms[1].attributes() == {"n": n + 2}
        assert rooms[2].delete_attribute("n")


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


def test_a_session_in_rooms_of_all_nodes_goes_on_in_another_process_amid_broadcasts(nodes):
    client = redis.RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", nodes[0].port)])
    world = HandoverWorld(client, prefix=f"moving-{os.getpid()}")
    try:
        names = [f"room {n}" for n in range(12)]
        ann = Client(world, *names, user="ann")
        stopping, sent = threading.Event(), dict.fromkeys(names, 0)

        def speak():
            rooms = [world.all_rooms[1].room(name) for name in names]
            while not stopping.wait(0.001):
                for room in rooms:
                    room.broadcast(f"{room.name} {sent[room.name]}")
                    sent[room.name] += 1

        speaker = threading.Thread(target=speak, daemon=True)
        speaker.start()
        for turn in range(6):
            assert not isinstance(world.come_back(ann, 1 - turn % 2), str)
        stopping.set()
        speaker.join(DEADLINE_S)
        for name in names:
            world.all_rooms[1].room(name).broadcast(f"{name} last")
        heard = ann.rest()
        while sum(text.endswith("last") for text in heard) < len(names):
            heard += ann.member.receive(1)
        for name in names:
            numbers = [int(text.split()[2]) for text in heard if text.startswith(f"{name} ") and "last" not in text]
            assert numbers == list(range(numbers[0], sent[name]))
    finally:
        world.end()


def test_how_sessions_have_ended_is_told_after_their_process_has_ended(nodes):
    client = redis.RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", nodes[0].port)])
    world = HandoverWorld(client, prefix=f"ended-{os.getpid()}")
    try:
        clients = [Client(world, "lobby") for _ in range(3)]
        for each in clients:
            world.places[0].close_for_good(each, 4001, "go")
        world.places[0].handover.stop(DEADLINE_S)
        world.links[0].stop(DEADLINE_S)
        assert [world.come_back(each, 1) for each in clients] == [(4001, "go")] * 3
    finally:
        world.end()


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


@pytest.mark.quiet  # calls are to be faster than one that waits for a second
@pytest.mark.parametrize("hanging", range(3))
def test_a_node_that_hangs_does_not_delay_the_rooms_of_others(nodes, monkeypatch, hanging, impatient):
    """Neither their broadcasts, nor what is sent behind those, nor their counts. Nor does a thread wait for long."""
    client = redis.RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", nodes[0].port)], socket_timeout=3)
    world = RedisWorld(client, prefix=f"hanging-{hanging}-{os.getpid()}")
    names = [f"room {n}" for n in range(30)]
    a, b = world.member(*names), world.member(*names)
    ports = {name: client.get_node_from_key(world.broker._keys.address("/ws/test", name).log).port for name in names}
    there = [name for name in names if ports[name] == nodes[hanging].port]
    others = [name for name in names if ports[name] != nodes[hanging].port]
    assert there
    assert len(set(ports.values())) == 3
    for name in names:
        wait_until(lambda name=name: a.session.room(name).members() == 2, "both are counted")
    impatient()
    nodes[hanging].freeze()
    try:
        begun = time.monotonic()
        a.session.room(there[0]).broadcast("waits")
        a.session.send("behind it")
        assert a.receive(1) == ["behind it"], "held for a second at most"
        assert time.monotonic() - begun < 0.2 * DEADLINE_S
        b.session.room(there[0]).broadcast("waits, too")
        took_s = []
        for name in others:
            begun = time.monotonic()
            a.session.room(name).broadcast(f"to {name}")
            assert a.receive(1) == b.receive(1) == [f"to {name}"]
            assert a.session.room(name).members() == 2
            b.session.room(name).leave()
            b.session.room(name).join()
            took_s.append(time.monotonic() - begun)
        assert median(took_s) < 0.5 * WAIT_S, "none waits for the other node"
    finally:
        nodes[hanging].thaw()
    for member in (a, b):
        assert sorted(member.receive(2)) == ["waits", "waits, too"]
    wait_until(lambda: all(_is_complete(node) for node in nodes), "the cluster's being complete")
    world.end()


def test_users_and_presence_over_the_nodes(world):
    a, b = [Worker(world, rooms) for rooms in world.all_rooms]
    broker, link = world.broker, world.links[0]
    names = [f"user {n}" for n in range(12)]
    members = [world.member("lobby", of=b.rooms, user=name) for name in names]
    assert len({link._by_shard[link.shard(world.path, user_room(name))] for name in names}) == 3, "on all nodes"
    for name, member in zip(names, members, strict=True):
        handle = User(name, a.rooms.directory)
        handle.send("hi")
        broker.user(world.path, name).send("from outside")
        assert sorted(member.receive(2)) == ["from outside", "hi"]
        assert handle.is_online()
        assert broker.user(world.path, name).is_online()
        peer = Peer(member.session.id, a.rooms.directory)
        assert peer.send("direct")
        assert member.receive(1) == ["direct"]
        assert peer.is_open()
        assert broker.session(world.path, member.session.id).is_open()
        member.session.room("lobby").set_presence(name)
    world.member("lobby", of=a.rooms)
    wait_until(lambda: list(a.there()) == names, "everybody")
    assert [person.key for person in broker.room(world.path, "lobby").presence()] == names
    for name, member in zip(names, members, strict=True):
        User(name, a.rooms.directory).close(4001, ban_s=60)
        wait_until(lambda member=member: member.channel.ending == (4001, ""), "the kick")
        b.end(member.session)
        wait_until(lambda name=name: b.rooms.directory.ban_of(name), "the ban")
    wait_until(lambda: not a.there(), "the leaves")
    for worker in (a, b):
        worker.rooms.roster.stop(DEADLINE_S)
