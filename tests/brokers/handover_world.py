"""Processes that hand sessions over, without servers: `Place` stands in for the sessions of an endpoint."""

from __future__ import annotations

import json
from hashlib import sha256

from tests.programs import DEADLINE_S
from tests.room_worlds import Member, RedisWorld
from tests.wire import parse_frames
from wsthreads.brokers.handover import Handover
from wsthreads.errors import counted
from wsthreads.protocol.encoding import PLAIN
from wsthreads.protocol.frames import message_frame
from wsthreads.sessions.moves import CannotMove, Claim, Ended

SECRET = sha256(b"secret").hexdigest()


class Kept:
    """What an outbox keeps of one session: `frames` are those that the client has not acknowledged."""

    def __init__(self, member, received):
        self.member = member
        self.acknowledged = received
        self.frames = []

    def export(self, *, ends=True):
        return self.acknowledged, [*self.frames]


class Away:
    """A session that leaves a process."""

    def __init__(self, place, client):
        self.place, self.client = place, client
        self.session = client.member.session
        self.outbox = client.kept
        self.left_s, self.secrets = client.left_s, [SECRET]

    def state(self):
        client = self.client
        client.cuts += 1
        client.member.outbox.append(message_frame(client.cut))  # what follows is not for it
        return {
            "id": client.id,
            "secrets": [SECRET],
            "user": client.user,
            "origin": client.origin,
            "encoding": PLAIN.name,
            "subprotocol": None,
            "attributes": json.dumps(client.attributes),
            "opened_at": 1.0,
            "expires_at": None,
            "received": 5,
            "asked": 1,
            "heard": 2,
            "unanswered": [2],
            "messages": client.messages,
        }

    def leave(self):
        del self.place.here[self.client.id]
        self.place.world._by_id.pop(self.client.id, None)
        self.place.left.append(self.client.id)

    def stay(self, why):
        self.place.stayed.append(self.client.id)

    def fail(self):
        self.place.close(self.client.id, 1006, "cannot move")


class Come:
    """A session that comes to a process."""

    def __init__(self, place, state):
        self.place, self.state = place, state
        self.member = Member(place.rooms, place.world.flusher, place.world.session_class, session_id=state.id)
        self.member.session._user = state.user
        self.session = self.member.session
        place.world.members.append(self.member)
        self.settled = None
        self.is_dropped = False

    def appear(self):
        self.place.world._by_id[self.state.id] = self.session

    def settle(self, acknowledged, frames):
        self.settled = (acknowledged, frames)
        client = self.place.clients[self.state.id]
        client.drain(client.cut)
        client.got += texts(frames)
        client.member, client.kept = self.member, Kept(self.member, acknowledged + len(frames))
        self.place.here[self.state.id] = client

    def drop(self):
        self.is_dropped = True
        self.place.world._by_id.pop(self.state.id, None)

    def end(self, code, reason, *, has_lapsed=False):
        self.place.close(self.state.id, code, reason)


def judge_received(client, received):
    first, last = client.kept.acknowledged, client.kept.acknowledged + len(client.kept.frames)
    if received > last:
        return 1002, f"{counted(received, 'message')} received, {first} to {last} are possible"
    return "counts" if received < first else ""


class Place:
    """The sessions of one process."""

    def __init__(self, world, number):
        self.world, self.number = world, number
        self.rooms, self.link, self.counts = world.all_rooms[number], world.links[number], []
        self.here, self.left, self.stayed, self.closed = {}, [], [], []
        self.clients = world.clients
        self.why, self.is_busy, self.is_json = "", False, True
        self.records = []
        self.handover = Handover(
            self.rooms, self.link, self, timers=world.flusher, count=self.counts.append, max_missed_bytes=2**20
        )

    def judge(self, session_id, secret, user, origin, encoding, received):
        if session_id not in self.here or secret != SECRET:
            return "unknown"
        return self.why or judge_received(self.here[session_id], received)

    def ended(self):
        return [*self.records]

    def left_behind(self):
        return []

    def stays(self, session_id, why):
        assert session_id in self.here

    def depart(self, session_id, timeout_s):
        if self.is_busy or session_id not in self.here:
            return None
        if not self.is_json:
            self.close(session_id, 1006, "cannot move")
            raise CannotMove("the attribute 'lock' is not JSON", [SECRET], 60.0)
        return Away(self, self.here[session_id])

    def arrive(self, state, request, encoding):
        return Come(self, state)

    def close(self, session_id, code, reason):
        """`on_close`, with all that belongs to it."""
        client = self.here.pop(session_id)
        self.closed.append((session_id, code, reason))
        self.rooms.leave_all(client.member.session)

    def close_for_good(self, client, code, reason):
        """As the application does while the client is away."""
        self.close(client.id, code, reason)
        self.records.append((client.id, Ended(code, reason, [SECRET], client.user, client.origin), client.left_s))


class Client:
    """One client and its session."""

    def __init__(self, world, *rooms, place=0, user=None):
        self.user, self.origin, self.attributes, self.messages = user, None, {}, []
        self.left_s, self.got, self.cuts = 60.0, [], 0
        self.member = world.member(*rooms, of=world.all_rooms[place], user=user)
        self.id = self.member.session.id
        self.kept = Kept(self.member, 0)
        world.clients[self.id] = self
        world.places[place].here[self.id] = self

    def claim(self, **changes):
        received = self.kept.acknowledged + len(self.kept.frames)
        return Claim(
            **{
                "session_id": self.id,
                "secret": SECRET,
                "received": received,
                "user": self.user,
                "origin": self.origin,
                "encoding": PLAIN,
                **changes,
            }
        )

    @property
    def cut(self):
        """What marks in its stream where its state was copied last."""
        return f"[cut {self.cuts}]"

    def drain(self, until):
        """Take all that it has got up to this text."""
        self.member.outbox.flush()
        self.got += [text for text in self.member.receive_until(until)[:-1] if not text.startswith("[cut")]

    def rest(self):
        """All that it has got until now."""
        self.member.session.send("[end]")
        self.drain("[end]")
        return self.got


class HandoverWorld(RedisWorld):
    """Several processes with one endpoint."""

    def __init__(self, redis, *, processes=2, **options):
        super().__init__(redis, processes=processes, **options)
        self.clients = {}
        self.places = [Place(self, number) for number in range(processes)]

    def come_back(self, client, place, **changes):
        """What a process says to a client that comes back: the session is there then, unless that is a text."""
        return self.places[place].handover.fetch(client.claim(**changes), None)

    def end(self):
        for place in self.places:
            place.handover.stop(DEADLINE_S)
        super().end()


def texts(frames):
    return [payload.decode() for _, payload in parse_frames(b"".join(frames))[0]]
