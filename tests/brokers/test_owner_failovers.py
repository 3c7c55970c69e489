"""Owners of rooms while their Redis is another one: a Sentinel's failover, a cluster, a forked process."""

import collections
import contextlib
import json
import os
import random
import threading

import pytest
import redis
from redis.sentinel import Sentinel

from tests.brokers.test_redis_cluster import nodes  # noqa: F401, a fixture
from tests.brokers.test_shared_ownership import HOOKS, Workers, _check_one_owner, _works
from tests.ports import free_port
from tests.programs import DEADLINE_S, wait_until
from tests.redis_proxy import Proxy
from tests.redis_server import RedisServer
from wsthreads import PostError

TICKING = {"hooks": HOOKS | {"on_tick"}, "rate": 60}


@pytest.fixture
def make():
    made = []

    def make(client, **options):
        made.append(Workers(client, **options))
        return made[-1]

    yield make
    for world in made:
        world.end()


@pytest.mark.long
def test_a_failover_by_sentinel_makes_no_second_owner(make, tmp_path):
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(RedisServer())
        second = stack.enter_context(RedisServer("--replicaof", "127.0.0.1", str(first.port)))
        wait_until(lambda: second.client.info("replication")["master_link_status"] == "up")
        port = free_port()
        conf = tmp_path / "sentinel.conf"
        conf.write_text(
            f"port {port}\nsentinel monitor main 127.0.0.1 {first.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        )
        stack.enter_context(RedisServer(str(conf), "--sentinel", "--port", str(port), port=port))
        sentinel = Sentinel([("127.0.0.1", port)], socket_timeout=1)
        wait_until(lambda: sentinel.discover_slaves("main"))
        world = make(sentinel.master_for("main", socket_timeout=1), processes=3, **TICKING)
        for worker in world.workers:
            worker.join()
        wait_until(lambda: any(len(worker.kinds()) > 20 for worker in world.workers))
        first.kill()
        wait_until(lambda: second.client.info("replication")["role"] == "master", "the failover")
        wait_until(lambda: any(worker.fence() for worker in world.workers), "somebody owns the room")
        count = len(world.all_calls())
        wait_until(lambda: len(world.all_calls()) > count + 30)
        wait_until(lambda: _works(world.workers[0].posted))
        _check_one_owner(*world.workers)


def test_rooms_have_owners_in_a_cluster(nodes, make):  # noqa: F811
    client = redis.RedisCluster("127.0.0.1", nodes[0].port, socket_timeout=3)
    world = make(client, processes=3)
    a, b, c = world.workers
    names = [f"room {n}" for n in range(30)]
    members = {worker: world.member(*names, of=worker.rooms).session for worker in (a, b)}
    for n, name in enumerate(names):
        c.posted(f'"{n}"', room=name)
    owners = [a if a.fence(name) else b for name in names]
    assert [owner.posts(name) for owner, name in zip(owners, names, strict=True)] == [[f'"{n}"'] for n in range(30)]
    a.leave(members[a])
    wait_until(lambda: all(b.fence(name) for name in names))
    for n, name in enumerate(names):
        c.posted(f'"{n}"', room=name)
    _check_one_owner_each(world, names)
    world.kill(b)
    a.world.member(*names, of=a.rooms)
    wait_until(lambda: all(a.fence(name) for name in names))


def _check_one_owner_each(world, names):
    for name in names:
        fences = [fence for _, room, fence, *_ in world.all_calls() if room == name]
        assert fences == sorted(fences)


def test_a_forked_process_owns_nothing_and_can_post(redis_server, make):
    world = make(redis_server.url)
    a, b = world.workers
    a.join()
    fence = a.wait_owner()
    pid = os.fork()
    if not pid:
        code = 9
        try:
            for worker in (a, b):
                worker.rooms.give_up(has_members=True)
            code = 1 if a.fence() else 2
            if code == 2:
                a.posted('"from a fork"')
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert a.posts() == ['"from a fork"']
    b.posted('"and from another"')
    assert a.fence() == fence
    assert a.kinds() == ["room_start", "post", "post"]


@pytest.mark.long
def test_whatever_breaks_no_post_is_handled_twice_and_its_poster_knows(redis_server, make, impatient):
    """Three processes. Their ways to Redis are cut, or swallow requests or answers; Redis loses its data."""
    impatient()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(redis_server.port)) for _ in range(3)]
        prefix = f"breaks-{seed}"
        worlds = [make(proxy.url, processes=1, prefix=prefix, post_timeout_s=4.0) for proxy in proxies]
        workers = [world.workers[0] for world in worlds]
        members = [worker.join() for worker in workers]
        told, is_over = {}, threading.Event()

        def post(nth, worker):
            number = 0
            while not is_over.is_set():
                value = f"[{nth}, {number}]"
                number += 1
                try:
                    worker.post(value).wait("game", DEADLINE_S)
                except PostError as error:
                    told[value] = "unknown" if error.is_unknown else "refused"
                    is_over.wait(0.02)
                else:
                    told[value] = "handled"

        threads = [threading.Thread(target=post, args=(n, workers[n % 3])) for n in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(12):
            proxy, nth = rng.choice(list(zip(proxies, range(3), strict=True)))
            what = rng.choice(["cut", "requests", "answers", "both", "leave", "flush"])
            print(what, nth)
            if what == "cut":
                proxy.cut()
            elif what == "flush":
                redis_server.client.flushall()
            elif what == "leave":
                workers[nth].leave(members[nth])
            else:
                proxy.swallow(*(["requests", "answers"] if what == "both" else [what]))
            is_over.wait(rng.random() * 1.5)
            proxy.heal()
            if what == "leave":
                members[nth] = workers[nth].join()
            is_over.wait(rng.random() * 0.5)
        wait_until(lambda: all(_works(worker.posted) for worker in workers), "all is well again")
        wait_until(lambda: [*told.values()].count("handled") > 100, "a hundred posts")
        is_over.set()
        for thread in threads:
            thread.join()
        calls = sorted(call for worker in workers for call in worker.calls)
        handled = [value for *_, kind, value in calls if kind == "post" and value != "1"]
        assert len(set(handled)) == len(handled), "none twice"
        for value, outcome in told.items():
            assert outcome == "unknown" or (value in handled) == (outcome == "handled"), f"{value} {outcome}"
        for nth in range(6):
            numbers = [number for poster, number in map(json.loads, handled) if poster == nth]
            assert numbers == sorted(numbers), "in its poster's order"
        _check_one_owner(*workers)
        print(collections.Counter(told.values()))
