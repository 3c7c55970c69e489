"""Rooms without a server, for tests: members on socketpairs, in one process, or in what Redis takes for two."""

from __future__ import annotations

import itertools
import random
import socket
from functools import partial
from weakref import WeakValueDictionary

from tests.programs import DEADLINE_S
from tests.wire import parse_frames, run_all
from wsthreads.brokers import availability, pending
from wsthreads.brokers.redis import RedisBroker
from wsthreads.brokers.rooms import SharedRooms, SharedSession
from wsthreads.monitoring.metrics import Metrics
from wsthreads.protocol.encoding import PLAIN
from wsthreads.protocol.frames import message_frame
from wsthreads.protocol.handshake import Request
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.transport import PlainTransport
from wsthreads.rooms.rooms import Rooms
from wsthreads.sessions.session import Session
from wsthreads.threads.drainer import Drainer
from wsthreads.threads.flusher import Flusher

#: What a client is sent first when it comes back.
WELCOME = "\x10w{}"

LIMITS = {"max_name_chars": 256, "max_per_session": 1000}


class FakeChannel:
    """One end of a socketpair in place of a connection: it sends, and keeps what it is closed with."""

    def __init__(self, flusher, encoding=PLAIN):
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(DEADLINE_S)
        self.transport = PlainTransport(self.ours)
        self.ending = self.subprotocol = None
        self.outbox = Outbox(
            self.transport,
            flusher,
            max_bytes=2**30,
            timeout_s=DEADLINE_S,
            on_stuck=lambda reason: None,
            encoding=encoding,
        )

    def begin_close(self, code, reason="", *, is_kick=False, is_expiry=False):
        if self.ending is not None:
            return False
        self.ending = (code, reason)
        return True

    def keep(self):
        """From now on the session survives its connection."""
        self.outbox.keep(2**30, on_stuck=lambda reason: None)

    def leave(self):
        self.outbox.suspend(self.transport)
        self.ours.close()
        self.theirs.close()

    def come_back(self, received):
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(DEADLINE_S)
        self.transport = PlainTransport(self.ours)
        self.outbox.resume(self.transport, message_frame(WELCOME), received, on_stuck=lambda reason: None)

    def receive_rest(self):
        """The texts that have not been received, once nothing more is appended."""

        def end():
            assert self.outbox.wait_sent(DEADLINE_S)
            self.ours.shutdown(socket.SHUT_WR)

        data = bytearray()

        def read():
            while piece := self.theirs.recv(1 << 18):
                data.extend(piece)

        run_all(end, read)
        frames, rest = parse_frames(bytes(data))
        assert not rest
        return [payload.decode() for _, payload in frames]

    def end(self):
        self.outbox.detach()
        self.ours.close()
        self.theirs.close()


class Member:
    """A session over a socketpair, without a server."""

    def __init__(self, rooms, flusher, session_class=Session, user=None, encoding=PLAIN, session_id=None):
        self._flusher = flusher
        self.channel = FakeChannel(flusher, encoding)
        request = Request({})
        request.user = user
        self.session = session_class(session_id or f"member-{id(self)}", request, self.channel, rooms)
        self.ban = None if user is None else rooms.directory.enter(self.session)
        self.data = b""

    @property
    def outbox(self):
        return self.channel.outbox

    @property
    def theirs(self):
        return self.channel.theirs

    def leave(self):
        """Lose the connection. The session stays."""
        self.channel.leave()
        self.data = b""

    def come_back(self, received):
        """Have another connection, for a client that has received so many messages."""
        self.channel.come_back(received)
        self.data = b""
        assert self.receive(1) == [WELCOME]

    def receive(self, count):
        found = []
        while len(found) < count:
            frames, self.data = parse_frames(self.data, count - len(found))
            found += [payload.decode() for _, payload in frames]
            if len(found) < count:
                piece = self.theirs.recv(1 << 18)
                assert piece
                self.data += piece
        return found

    def receive_until(self, last):
        found = []
        while not found or found[-1] != last:
            found += self.receive(1)
        return found

    def end(self):
        self.channel.end()


class World:
    """Rooms in the memory of one process."""

    session_class = Session

    def __init__(self, history=None):
        self.flusher, self.drainer, self.members = Flusher(), Drainer(), []
        self.flusher.start()
        #: Those of each process.
        self.all_rooms = self.make_rooms()
        for rooms in self.all_rooms if history is not None else ():
            rooms.use_history(self.flusher, history)
        self.counts = [Metrics() for _ in self.all_rooms]
        self._by_id = WeakValueDictionary()
        for rooms, counts in zip(self.all_rooms, self.counts, strict=True):
            rooms.use_directory(path="/ws/test", count=counts.add, find=partial(self._find, rooms))
            rooms.use_attributes(timers=self.flusher, max_bytes=65536, keep_s=60.0)
        self.rooms = self.all_rooms[0]
        self._turns = itertools.cycle(self.all_rooms)

    def make_rooms(self):
        return [Rooms(self.drainer, **LIMITS)]

    def _find(self, rooms, session_id):
        """A session of one process, as an endpoint finds it."""
        session = self._by_id.get(session_id)
        return session if session is not None and session._rooms is rooms else None

    def member(self, *rooms, of=None, user=None, encoding=PLAIN):
        """A member of some rooms; in one process after the other, unless it is said in whose `rooms`."""
        rooms_of = next(self._turns) if of is None else of
        member = Member(rooms_of, self.flusher, self.session_class, user, encoding)
        self.members.append(member)
        self._by_id[member.session.id] = member.session
        for room in rooms:
            member.session.room(room).join()
        return member

    def end(self):
        for member in self.members:
            member.end()
        self.drainer.stop(DEADLINE_S)
        self.flusher.stop(DEADLINE_S)


class RedisWorld(World):
    """Rooms of two apps that have nothing in common but Redis."""

    session_class = SharedSession

    def __init__(self, redis, *, prefix="test", path="/ws/test", processes=2, history=None, **options):
        self.path = path
        self.metrics = [Metrics() for _ in range(processes)]
        self.broker = RedisBroker(redis, prefix=prefix, **options)
        self.links = [self.broker.link(metrics) for metrics in self.metrics]
        super().__init__(history)

    def make_rooms(self):
        return [SharedRooms(self.path, link, self.drainer, **LIMITS) for link in self.links]

    def end(self):
        for link in self.links:
            link.stop(DEADLINE_S)
        self.broker.close()
        super().end()


def be_patient(monkeypatch, wait_s=2 * DEADLINE_S):
    """Nothing goes on only because it has waited enough: a Redis, or a thread, that waits for a core is not away."""
    for module, name in ((availability, "WAIT_S"), (pending, "LONGEST_S")):
        monkeypatch.setattr(module, name, wait_s)


def world_of(request, **options):
    """For a fixture with the parameters "local" and "redis": rooms in memory, or over Redis with a prefix of their own.

    `options` are those of `RedisWorld`. See `be_patient`.
    """
    if request.param == "local":
        return World(options.get("history"))
    be_patient(request.getfixturevalue("monkeypatch"))
    redis = request.getfixturevalue("redis_server")
    return RedisWorld(redis.url, prefix=f"test-{random.randrange(2**32)}", **options)
