"""A model of ``wsthreads.1`` without sockets: a client, a server, and connections that break, stall and overtake.

`World` has both sides as docs/reference/protocol.rst describes them. An *action* is one step that can come next: one
message arrives, the application sends, a connection breaks. Each side keeps the rules of its own; `Violation` is raised
where a promise is broken. What is on a connection was written by `wsthreads.protocol.envelope` and is read by it:

- each message arrives once and in order, in both directions, unless its session has ended and the sender was told so;
- a session ends only if its window has ended or the application has closed it, and the client is told of that;
- no side sends what the other must answer with 1002;
- when nothing breaks any more, everything arrives, each request is settled, and nothing stays kept (`World.finish`).

`explore` tries all orders of a few actions, breadth-first; `main` runs random orders: ``python -m
tests.protocol.model_of_resume --runs 1000000``. `Fault` has mistakes that the model must find.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from functools import lru_cache
from random import Random, SystemRandom
from typing import Any

from wsthreads.errors import ProtocolError
from wsthreads.protocol import envelope
from wsthreads.protocol.frames import message_frame

__all__ = ["ACTIONS", "Fault", "Limits", "Violation", "World", "explore", "play", "random_actions", "shortest"]

#: A message of either side: its letter, then its parts. "m" is an ordinary message.
Message = tuple[Any, ...]

#: The same on the wire. A tuple is a close frame.
Written = str | bytes | Message

#: A receiver acknowledges after so many counted messages, and a sender waits while so many are unacknowledged. The page
#: has 64, and 256 KiB; in a short play these must be small to matter.
ACK_EVERY = 2
WINDOW = 3


class Violation(AssertionError):
    """A promise is broken."""


class Fault(Enum):
    """A mistake in a rule, one at a time."""

    NO_FORMER_TOKEN = auto()  # only the token of the last welcome is valid
    ONE_FORMER_TOKEN = auto()  # that, and the one that the last hello showed
    OLD_TOKEN = auto()  # the client goes on with its first token
    COUNT_CONTROLS = auto()  # acknowledgements are counted, too
    RESEND_ALL = auto()  # the server does not forget what the hello's count has acknowledged
    RESEND_NO_WRITTEN = auto()  # what was written counts as received
    FORGET_WAITING = auto()  # what was not written yet is dropped with the connection
    FORGET_AT_WRITE = auto()  # the client does not wait for the acknowledgement
    COUNT_BEFORE_CUT = auto()  # the welcome's count is read before the old connection is cut off
    READ_OLD = auto()  # the client still takes messages of the old connection after the hello
    REPLACE_WRITTEN = auto()  # `latest` replaces what may have arrived
    REPLACE_AFTER_RESUME = auto()  # so it does after a resume whose hello tells of less
    STALE_ACK = auto()  # an acknowledgement for the old connection is written to the new one
    LATE_ANSWER = auto()  # an answer goes to whatever session there is
    RESEND_LOST = auto()  # the client sends in a new session what it does not know the end of
    SEND_EARLY = auto()  # the client does not wait for the welcome
    SAVE_QUEUE = auto()  # the client does not write its queue after a resume
    LATE_ACKS = auto()  # a receiver acknowledges only after more than a sender writes without
    NO_RECORD = auto()  # the server forgets at once that it has closed a session


@lru_cache(100_000)
def pack(message: Message) -> Written:
    """The message as it is written. The values are numbers; ordinary messages look like all kinds of others."""
    kind, *parts = message
    match kind:
        case "m" | "k":
            return envelope.escaped(plain(parts[0]))
        case "q":
            return envelope.request(parts[0], plain(parts[1]))
        case "r":
            number, value, own = parts
            text = f"{value}/{own}"
            if own % 3 == 0:
                return envelope.failure(number, text)
            return envelope.reply(number, text if own % 2 else text.encode())
        case "a":
            return envelope.ack(parts[0])
        case "p":
            return envelope.heartbeat(parts[0])
        case "h":
            return envelope.hello(f"{parts[0]}.{parts[1]}", parts[2]) if parts else envelope.hello()
        case "w":
            is_resumed, session, secret, received = parts
            return envelope.welcome(envelope.Welcome(is_resumed, f"{session}.{secret}", received, 60000, 25000, 20000))
    return message


@lru_cache(100_000)
def unpack(written: Written) -> Message:
    """Raises `Violation` for what is no message, or another one than was packed."""
    if isinstance(written, tuple):
        return written
    try:
        parsed = envelope.parse(written)
    except ProtocolError as error:
        raise Violation(f"{written!r}: {error}") from None
    is_counted = envelope.is_counted(message_frame(written))
    if is_counted == isinstance(parsed, UNCOUNTED):
        raise Violation(f"counted by one side only: {written!r}")
    match parsed:
        case envelope.Ack(received):
            return ("a", received)
        case envelope.Heartbeat(received):
            return ("p", received)
        case envelope.Request(number, data):
            return ("q", number, _value(data))
        case envelope.Reply(number, text) | envelope.Failure(number, text):
            value, own = (text if isinstance(text, str) else text.decode()).split("/")
            return ("r", number, int(value), int(own))
        case envelope.Hello(token, received):
            return ("h", *map(int, token.split(".")), received) if token else ("h",)
        case envelope.Welcome(resumed=resumed, token=token, received=received):
            assert token is not None
            return ("w", resumed, *map(int, token.split(".")), received)
    assert isinstance(parsed, str | bytes), parsed
    return ("m", _value(parsed))


UNCOUNTED = (envelope.Hello, envelope.Welcome, envelope.Ack, envelope.Heartbeat)


def plain(value: int) -> str | bytes:
    text = ("", "\x10", "\x10a", "\x10\x10", "\x10r1:", "\x10h{}")[value % 6] + str(value)
    return text if value % 4 else text.encode()


def _value(message: str | bytes) -> int:
    text = message if isinstance(message, str) else message.decode()
    found = LAST_NUMBER.search(text)
    value = int(found[0]) if found else 0
    if message != plain(value):
        raise Violation(f"{message!r} has another content than was sent")
    return value


LAST_NUMBER = re.compile("[0-9]+$")


class Limits:
    """How often a kind of action may happen. `None`: as often as wanted."""

    NAMES = (
        *("sends", "asks", "server_sends", "latest", "server_asks", "acks"),
        *("connects", "breaks", "refusals", "ends", "kicks"),
    )
    __slots__ = NAMES

    def __init__(self, **limits: int) -> None:
        for name in self.NAMES:
            setattr(self, name, limits.get(name, 0))

    def copy(self) -> Limits:
        return Limits(**dict(zip(self.NAMES, self.key(), strict=True)))

    def key(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in self.NAMES)


class Connection:
    """What both sides have written and the other has not read. After `is_cut`, nothing arrives."""

    __slots__ = ("is_closed", "is_cut", "secret", "session", "to_client", "to_server")

    def __init__(self) -> None:
        self.to_server: list[Written] = []
        self.to_client: list[Written] = []
        self.is_cut = False
        self.is_closed = False  # the server's end
        self.session = -1  # the server's, after its hello
        self.secret = 0  # that the welcome has brought

    def copy(self) -> Connection:
        new = Connection()
        new.to_server, new.to_client = self.to_server[:], self.to_client[:]
        new.is_cut, new.is_closed, new.session, new.secret = self.is_cut, self.is_closed, self.session, self.secret
        return new

    def key(self) -> tuple[Any, ...]:
        return (tuple(self.to_server), tuple(self.to_client), self.is_cut, self.is_closed, self.session, self.secret)


class Counts:
    """What each side has of a session: what it keeps, what it has taken, and its requests."""

    __slots__ = ("asked", "asked_by_other", "forgotten", "kept", "owed", "pending", "received", "since")

    def __init__(self) -> None:
        self.kept: list[Message] = []  # written or to be written, and not acknowledged
        self.forgotten = 0  # so many came before these
        self.received = 0
        self.since = 0  # of these, since the last acknowledgement
        self.pending: dict[int, int] = {}  # our requests
        self.asked = self.asked_by_other = 0  # the last id
        self.owed: list[tuple[int, int, int]] = []  # requests to answer: session, id, value

    def copy_to(self, new: Counts) -> None:
        new.kept, new.forgotten, new.received = self.kept[:], self.forgotten, self.received
        new.pending, new.asked, new.asked_by_other = self.pending.copy(), self.asked, self.asked_by_other
        new.owed, new.since = self.owed[:], self.since

    def count_key(self) -> tuple[Any, ...]:
        lists = tuple(self.kept), tuple(self.pending.items()), tuple(self.owed)
        return (*lists, self.forgotten, self.received, self.since, self.asked, self.asked_by_other)

    def forget(self, count: int, written: int) -> None:
        """The other side has `count` messages, of which it can have at most `written`."""
        if not self.forgotten <= count <= self.forgotten + written:
            raise Violation(f"{count} acknowledged, of {self.forgotten} to {self.forgotten + written}")
        del self.kept[: count - self.forgotten]
        self.forgotten = count

    def take(self, message: Message, session: int) -> None:
        """Count a message, and settle or note its request."""
        self.received += 1
        self.since += 1
        kind = message[0]
        if kind == "q":
            if message[1] != self.asked_by_other + 1:
                raise Violation(f"request {message[1]} after {self.asked_by_other}")
            self.asked_by_other += 1
            self.owed.append((session, message[1], message[2]))
        elif kind == "r":
            if not 1 <= message[1] <= self.asked:
                raise Violation(f"a reply to request {message[1]} of {self.asked}")
            if self.pending.pop(message[1], message[2]) != message[2]:
                raise Violation("the reply to another request")


class Client(Counts):
    """The client's side. `log` has, for each session, the values that it has numbered."""

    __slots__ = ("connection", "got", "is_live", "is_over", "log", "lost", "old", "queue", "session", "token")

    def __init__(self) -> None:
        super().__init__()
        self.connection: Connection | None = None
        self.old: Connection | None = None  # only for Fault.READ_OLD
        self.is_live = self.is_over = False
        self.token: tuple[int, int] | None = None
        self.session = -1
        self.queue: list[Message] = []  # never written
        self.log: dict[int, list[int]] = {}
        self.got = 0  # the value received last in this session
        self.lost: set[int] = set()

    def key(self) -> tuple[Any, ...]:
        log = tuple((name, tuple(values)) for name, values in self.log.items())
        state = (self.is_live, self.is_over, self.token, self.session, tuple(self.queue), log, self.got)
        return (*self.count_key(), *state, tuple(sorted(self.lost)))


class Session(Counts):
    """The server's side. `replaced` has the values of which a later one took the place."""

    __slots__ = (
        *("connection", "fixed", "has_record", "is_over", "last"),
        *("name", "replaced", "secrets", "stale", "written"),
    )

    def __init__(self, name: int) -> None:
        super().__init__()
        self.name = name
        self.connection: Connection | None = None
        self.is_over = False
        self.has_record = False  # of its end
        self.secrets: list[int] = []  # the one that the client has shown, then those issued since
        self.written = 0  # how many of `kept` were written to this connection
        self.fixed = 0  # how many of `kept` may have arrived over earlier connections
        self.stale: int | None = None  # only for Fault.STALE_ACK
        self.last = 0  # the value sent last
        self.replaced: set[int] = set()

    def copy(self) -> Session:
        new = Session(self.name)
        self.copy_to(new)
        new.is_over, new.has_record, new.secrets = self.is_over, self.has_record, self.secrets[:]
        new.written, new.fixed, new.stale, new.last = self.written, self.fixed, self.stale, self.last
        new.replaced = self.replaced.copy()
        return new

    def key(self) -> tuple[Any, ...]:
        state = (self.is_over, self.has_record, tuple(self.secrets), self.written, self.fixed, self.stale, self.last)
        return (*self.count_key(), *state, tuple(sorted(self.replaced)))


class World:
    """Both sides and the connections between them. Each action returns False if it cannot happen now."""

    def __init__(self, fault: Fault | None = None, limits: Limits | None = None) -> None:
        self.fault = fault
        self.limits = limits
        self.client = Client()
        self.sessions: list[Session] = []
        self.connections: list[Connection] = []
        self.issued = 0  # secrets
        self.sent = 0  # values of the client
        self.taken: set[int] = set()  # of these
        self.may_end: set[int] = set()  # sessions whose window has ended, or that the application has closed
        self.is_closed = False  # the application has closed the client's session
        self.resumed = 0  # how often; only a figure

    # For `explore`

    def copy(self) -> World:
        new = World(self.fault, None if self.limits is None else self.limits.copy())
        twins = {id(old): old.copy() for old in self.connections}
        new.connections = list(twins.values())
        client, copied = self.client, new.client
        client.copy_to(copied)
        copied.connection = None if client.connection is None else twins[id(client.connection)]
        copied.old = None if client.old is None else twins[id(client.old)]
        copied.is_live, copied.is_over, copied.token = client.is_live, client.is_over, client.token
        copied.session, copied.queue, copied.got = client.session, client.queue[:], client.got
        copied.log = {name: values[:] for name, values in client.log.items()}
        copied.lost = client.lost.copy()
        for session in self.sessions:
            twin = session.copy()
            twin.connection = None if session.connection is None else twins[id(session.connection)]
            new.sessions.append(twin)
        new.issued, new.sent, new.taken, new.is_closed = self.issued, self.sent, self.taken.copy(), self.is_closed
        new.may_end = self.may_end.copy()
        return new

    def key(self) -> tuple[Any, ...]:
        places = {id(connection): place for place, connection in enumerate(self.connections)}

        def at(connection: Connection | None) -> int | None:
            return None if connection is None else places[id(connection)]

        return (
            self.client.key(),
            at(self.client.connection),
            at(self.client.old),
            tuple((*session.key(), at(session.connection)) for session in self.sessions),
            tuple(connection.key() for connection in self.connections),
            (self.issued, self.sent, tuple(sorted(self.taken)), self.is_closed, tuple(sorted(self.may_end))),
            None if self.limits is None else self.limits.key(),
        )

    def _spend(self, name: str) -> bool:
        limits = self.limits
        if limits is None:
            return True
        left = getattr(limits, name)
        if left:
            setattr(limits, name, left - 1)
        return bool(left)

    def _tidy(self) -> None:
        """Forget connections on which nothing can happen any more."""
        client = self.client
        self.connections = [
            one
            for one in self.connections
            if one is client.connection or one is client.old or not (one.is_closed or (one.is_cut and one.session < 0))
        ]

    # The client

    def client_sends(self) -> bool:
        if self.client.is_over or not self._spend("sends"):
            return False
        self.sent += 1
        self._number(("m", self.sent))
        return True

    def client_asks(self) -> bool:
        if self.client.is_over or not self._spend("asks"):
            return False
        self.sent += 1
        self._number(("q", 0, self.sent))
        return True

    def _number(self, message: Message) -> None:
        """Write a counted message for the first time, or let it wait for a connection or acknowledgements."""
        client = self.client
        if not client.is_live or client.queue or len(client.kept) >= WINDOW:
            client.queue.append(message)
            if self.fault is Fault.SEND_EARLY and client.connection is not None:
                client.connection.to_server.append(pack(message))
            return
        self._write(message)

    def _write_queue(self) -> None:
        client = self.client
        while client.queue and len(client.kept) < WINDOW:
            self._write(client.queue.pop(0))

    def _write(self, message: Message) -> None:
        client = self.client
        if message[0] == "q":
            client.asked += 1
            client.pending[client.asked] = message[2]
            message = ("q", client.asked, message[2])
        client.log[client.session].append(message[-1])
        if self.fault is Fault.FORGET_AT_WRITE:
            client.forgotten += 1
        else:
            client.kept.append(message)
        self._to_server(message)

    def _to_server(self, message: Message) -> None:
        connection = self.client.connection
        assert connection is not None
        if not (connection.is_cut or connection.is_closed):
            connection.to_server.append(pack(message))

    def client_acknowledges(self) -> bool:
        if not self.client.is_live or not self._spend("acks"):
            return False
        self._client_acknowledges()
        return True

    def _client_acknowledges(self) -> None:
        self.client.since = 0
        self._to_server(("a", self.client.received))

    def _ack_every(self) -> int:
        return WINDOW + 1 if self.fault is Fault.LATE_ACKS else ACK_EVERY

    def client_beats(self) -> bool:
        if not self.client.is_live or not self._spend("acks"):
            return False
        self._to_server(("p", self.client.received))
        return True

    def client_answers(self) -> bool:
        client = self.client
        if not client.owed or client.is_over:
            return False
        session, number, value = client.owed[0]
        is_late = session != client.session and self.fault is not Fault.LATE_ANSWER
        can_write = client.is_live and len(client.kept) < WINDOW
        if is_late or can_write:
            del client.owed[0]
        if is_late or not can_write:
            return is_late
        self.sent += 1
        client.log[client.session].append(self.sent)
        message = ("r", number, value, self.sent)
        client.kept.append(message)
        self._to_server(message)
        return True

    def client_gives_up(self) -> bool:
        """The timeout of a request."""
        pending = self.client.pending
        return bool(pending) and bool(pending.pop(next(iter(pending))))

    def client_connects(self) -> bool:
        """With no connection, or with one that it takes for dead, or with a fresh address."""
        client = self.client
        if client.is_over or len(self.connections) >= 3 or not self._spend("connects"):
            return False
        client.old = client.connection if self.fault is Fault.READ_OLD else None
        connection = client.connection = Connection()
        client.is_live = False
        self.connections.append(connection)
        token = client.token
        connection.to_server.append(pack(("h",) if token is None else ("h", *token, client.received)))
        if self.fault is Fault.SEND_EARLY:
            connection.to_server += map(pack, client.queue)
        self._tidy()
        return True

    def client_drops(self) -> bool:
        """It takes its connection for dead, and the server does not know."""
        client = self.client
        if client.connection is None or not self._spend("breaks"):
            return False
        client.connection, client.is_live = None, False
        self._tidy()
        return True

    def client_finds_end(self) -> bool:
        """The connection is broken, or the server has closed it and everything before that was read."""
        client = self.client
        connection = client.connection
        if connection is None or not (connection.is_cut or (connection.is_closed and not connection.to_client)):
            return False
        client.connection, client.is_live = None, False
        self._tidy()
        return True

    def to_client(self) -> bool:
        """The client gets the next message."""
        client = self.client
        connection = client.connection
        if client.old is not None and client.old.to_client and unpack(client.old.to_client[0])[0] in "mqr":
            self._client_takes(unpack(client.old.to_client.pop(0)))
            return True
        if connection is None or connection.is_cut or not connection.to_client:
            return False
        message = unpack(connection.to_client.pop(0))
        if message[0] == "close":
            client.connection, client.is_live, client.is_over, client.token = None, False, True, None
            self._tidy()
        elif client.is_live:
            self._client_takes(message)
        elif message[0] == "w":
            self._welcomed(*message[1:])
        else:
            raise Violation(f"{message} before the welcome")
        return True

    def _welcomed(self, is_resumed: bool, session: int, secret: int, received: int) -> None:
        client = self.client
        client.is_live, client.since = True, 0
        if is_resumed:
            if session != client.session:
                raise Violation("another session was resumed")
            client.forget(received, len(client.kept))
            for message in client.kept:
                self._to_server(message)
            self.resumed += 1
            if self.fault is not Fault.OLD_TOKEN:
                client.token = (session, secret)
        else:
            if client.session >= 0 and client.session not in self.may_end:
                raise Violation("the session is lost")
            if self.is_closed:
                raise Violation("the client was closed, and is in again")
            lost = [message[-1] for message in client.kept]
            again = client.kept if self.fault is Fault.RESEND_LOST else []
            client.queue[:0] = [("m", message[-1]) for message in again]
            client.lost.update(lost)
            if client.log.get(client.session):
                client.lost.update(client.log[client.session][client.forgotten :])
            Counts.__init__(client) if self.fault is not Fault.LATE_ANSWER else self._begin_with_debts()
            client.got, client.session, client.token = 0, session, (session, secret)
            client.log[session] = []
        if self.fault is Fault.SAVE_QUEUE and is_resumed:
            return
        self._write_queue()

    def _begin_with_debts(self) -> None:
        owed = self.client.owed
        Counts.__init__(self.client)
        self.client.owed = owed

    def _client_takes(self, message: Message) -> None:
        client, kind = self.client, message[0]
        if kind == "a":
            client.received += self.fault is Fault.COUNT_CONTROLS
            client.forget(message[1], len(client.kept))
            self._write_queue()
            return
        if kind == "w":
            raise Violation("a second welcome")
        session, value = self.sessions[client.session], message[-1]
        if value <= client.got:
            raise Violation(f"the client got {value} again")
        for missing in range(client.got + 1, value):
            if missing not in session.replaced:
                raise Violation(f"the client has missed {missing}")
        client.got = value
        client.take(message, client.session)
        if client.since >= self._ack_every() and client.is_live:
            self._client_acknowledges()

    # The server

    def to_server_0(self) -> bool:
        return self._to_server_from(0)

    def to_server_1(self) -> bool:
        return self._to_server_from(1)

    def to_server_2(self) -> bool:
        return self._to_server_from(2)

    def _to_server_from(self, place: int) -> bool:
        """The server gets the next message of a connection."""
        if place >= len(self.connections):
            return False
        connection = self.connections[place]
        if connection.is_cut or connection.is_closed or not connection.to_server:
            return False
        message = unpack(connection.to_server.pop(0))
        if connection.session >= 0:
            self._server_takes(connection, message)
        elif message[0] == "h":
            self._greet(connection, *message[1:])
            self._tidy()
        else:
            raise Violation(f"{message} before the hello")
        return True

    def _greet(self, connection: Connection, name: int = -1, secret: int = 0, received: int = 0) -> None:
        session = self.sessions[name] if name >= 0 else None
        if session is None or secret not in session.secrets:
            session = None
        elif session.is_over:
            if session.has_record:
                connection.to_client.append(("close",))
                connection.is_closed = True
                return
            session = None
        elif received < session.forgotten:
            session = None  # a newer hello has overtaken this one
        if session is None:
            session = Session(len(self.sessions))
            self.sessions.append(session)
            self._attach(session, connection, is_resumed=False, secret=0)
            return
        if session.connection is not None:
            self._lose(session)
        if self.fault is not Fault.RESEND_ALL:
            before = session.forgotten
            session.forget(received, session.fixed)
            session.fixed -= session.forgotten - before
        self._attach(session, connection, is_resumed=True, secret=secret)

    def _attach(self, session: Session, connection: Connection, *, is_resumed: bool, secret: int) -> None:
        self.issued += 1
        if self.fault is Fault.NO_FORMER_TOKEN:
            session.secrets = []
        elif self.fault is Fault.ONE_FORMER_TOKEN:
            session.secrets = [secret]
        elif is_resumed:
            del session.secrets[: session.secrets.index(secret)]
        session.secrets.append(self.issued)
        session.connection, connection.session, connection.secret = connection, session.name, self.issued
        session.since = 0
        session.written = session.fixed if self.fault is Fault.RESEND_NO_WRITTEN else 0
        if self.fault is Fault.REPLACE_AFTER_RESUME:
            session.fixed = 0
        connection.to_client.append(pack(("w", is_resumed, session.name, self.issued, session.received)))
        if session.stale is not None:
            connection.to_client.append(pack(("a", session.stale)))
            session.stale = None

    def _lose(self, session: Session) -> None:
        """The server lets go of the session's connection."""
        connection = session.connection
        assert connection is not None
        session.connection = None
        if self.fault is Fault.FORGET_WAITING:
            del session.kept[session.written :]
        session.fixed = len(session.kept)
        if self.fault is not Fault.COUNT_BEFORE_CUT or connection.is_cut:
            connection.is_closed = True  # else, whatever arrives on it is still taken

    def _server_takes(self, connection: Connection, message: Message) -> None:
        session, kind = self.sessions[connection.session], message[0]
        if session.is_over:
            return
        if connection.secret in session.secrets:
            del session.secrets[: session.secrets.index(connection.secret)]
        if kind in "ap":
            session.received += self.fault is Fault.COUNT_CONTROLS
            before = session.forgotten
            session.forget(message[1], session.written)
            session.written -= session.forgotten - before
            session.fixed = max(0, session.fixed - (session.forgotten - before))
            if kind == "p" and session.connection is not None:
                self._to_client(session, ("a", session.received))
            return
        if kind == "h":
            raise Violation("a second hello")
        numbered, value = self.client.log.get(session.name, []), message[-1]
        if session.received >= len(numbered) or numbered[session.received] != value:
            raise Violation(f"the server got {value} as number {session.received + 1} of {numbered}")
        if value in self.taken:
            raise Violation(f"the server got {value} again")
        self.taken.add(value)
        session.take(message[:3], session.name)
        if session.since >= self._ack_every() and session.connection is connection:
            session.since = 0
            self._to_client(session, ("a", session.received))

    def _to_client(self, session: Session, message: Message) -> None:
        connection = session.connection
        assert connection is not None
        if not connection.is_cut:
            connection.to_client.append(pack(message))

    def _chosen(self) -> Session | None:
        """The session to which the application sends: that of the client, or else the newest."""
        for name in (self.client.session, len(self.sessions) - 1):
            if name >= 0 and not self.sessions[name].is_over:
                return self.sessions[name]
        return None

    def _send(self, limit: str, *message: Any) -> bool:
        session = self._chosen()
        if session is None or not self._spend(limit):
            return False
        session.last += 1
        session.kept.append((*message, session.last))
        return True

    def server_sends(self) -> bool:
        return self._send("server_sends", "m")

    def server_sends_latest(self) -> bool:
        """A message that replaces its predecessor if that waits."""
        session = self._chosen()
        if not self._send("latest", "k"):
            return False
        assert session is not None
        first = 0 if self.fault is Fault.REPLACE_WRITTEN else max(session.written, session.fixed)
        for place, message in enumerate(session.kept[first:-1], first):
            if message[0] == "k":
                session.replaced.add(message[1])
                del session.kept[place]
                session.written -= place < session.written
                session.fixed -= place < session.fixed
                break
        return True

    def server_asks(self) -> bool:
        session = self._chosen()
        if session is None or not self._send("server_asks", "q", session.asked + 1):
            return False
        session.asked += 1
        session.pending[session.asked] = session.last
        return True

    def server_answers(self) -> bool:
        for session in self.sessions:
            if session.owed and not session.is_over:
                _, number, value = session.owed.pop(0)
                session.last += 1
                session.kept.append(("r", number, value, session.last))
                return True
        return False

    def server_writes(self) -> bool:
        """The kernel takes one message more."""
        for session in self.sessions:
            if session.connection is not None and session.written < min(WINDOW, len(session.kept)):
                self._to_client(session, session.kept[session.written])
                session.written += 1
                return True
        return False

    def server_acknowledges(self) -> bool:
        session = self._chosen()
        if session is None or not self._spend("acks"):
            return False
        if session.connection is None:
            return False
        if self.fault is Fault.STALE_ACK:  # the kernel has no room for it
            session.stale = session.received
            return True
        self._to_client(session, ("a", session.received))
        return True

    def server_loses_0(self) -> bool:
        return self._server_loses(0)

    def server_loses_1(self) -> bool:
        return self._server_loses(1)

    def _server_loses(self, place: int) -> bool:
        """The server takes a connection for dead. The client may still get what is under way."""
        if place >= len(self.connections):
            return False
        connection = self.connections[place]
        is_dead = connection.is_cut or connection is not self.client.connection
        if connection.is_closed or not (is_dead or self._spend("breaks")):
            return False
        session = self.sessions[connection.session] if connection.session >= 0 else None
        if session is not None and session.connection is connection:
            self._lose(session)
        connection.is_closed = True
        self._tidy()
        return True

    def server_finds_end(self) -> bool:
        """It finds out that a connection is dead, or that the client has left it."""
        for place, connection in enumerate(self.connections):
            is_dead = connection.is_cut or (connection is not self.client.connection and not connection.to_server)
            if is_dead and not connection.is_closed:
                return self._server_loses(place)
        return False

    def server_refuses(self) -> bool:
        """By a status, or by 1013 before the welcome: the session is in another process's hands."""
        for connection in self.connections:
            if connection.session < 0 and connection.to_server and not (connection.is_cut or connection.is_closed):
                if not self._spend("refusals"):
                    return False
                connection.is_closed = True
                self._tidy()
                return True
        return False

    def window_ends(self) -> bool:
        for session in self.sessions:
            if session.connection is None and not session.is_over:
                if not self._spend("ends"):
                    return False
                session.is_over = True
                self.may_end.add(session.name)
                return True
        return False

    def server_closes(self) -> bool:
        """The application closes the session of the client with a final code."""
        session = self._chosen()
        if session is None or session.name != self.client.session or not self._spend("kicks"):
            return False
        session.is_over = True
        session.has_record = self.fault is not Fault.NO_RECORD
        self.may_end.add(session.name)
        self.is_closed = True
        if session.connection is not None:
            self._to_client(session, ("close",))
            session.connection.is_closed = True
            session.connection = None
            self._tidy()
        return True

    # The network

    def cut_0(self) -> bool:
        return self._cut(0)

    def cut_1(self) -> bool:
        return self._cut(1)

    def _cut(self, place: int) -> bool:
        if place >= len(self.connections) or self.connections[place].is_cut or not self._spend("breaks"):
            return False
        connection = self.connections[place]
        connection.is_cut = True
        connection.to_server.clear()
        connection.to_client.clear()
        self._tidy()
        return True

    def act(self, action: Action) -> bool:
        """Have an action of `World` happen, in the version of this class."""
        happened: bool = getattr(self, action.__name__)()
        return happened

    # The end

    def finish(self) -> None:
        """Nothing breaks any more: everything must arrive, and be acknowledged."""
        self.limits = None
        client = self.client
        for _ in range(1000):
            if not sum(self.act(action) for action in CALM):
                break
        else:
            raise Violation("they never come to rest")
        if client.is_over:
            self._check_lost()
            return
        if not client.is_live:
            raise Violation("the client is not connected")
        session = self.sessions[client.session]
        if client.queue or client.owed or session.owed or client.got != session.last:
            raise Violation(f"stuck: {client.queue} {client.owed} {session.owed} {client.got} of {session.last}")
        if client.pending or session.pending:
            raise Violation(f"requests without an answer: {client.pending} {session.pending}")
        self._client_acknowledges()
        self._to_client(session, ("a", session.received))
        while sum(self.act(action) for action in CALM):
            pass
        if client.kept or session.kept:
            raise Violation(f"kept for ever: {client.kept} {session.kept}")
        self._check_lost()

    def _check_lost(self) -> None:
        client = self.client
        unknown = set(range(1, self.sent + 1)) - self.taken - client.lost
        if client.is_over:  # what it has not sent, it has dropped
            unknown -= {message[-1] for message in [*client.kept, *client.queue]}
        if unknown:
            raise Violation(f"lost without a word: {sorted(unknown)}")

    def client_comes_back(self) -> bool:
        return self.client.connection is None and self.client_connects()


Action = Callable[[World], bool]

#: What goes on by itself when nothing breaks.
CALM: Sequence[Action] = [
    World.client_finds_end,
    World.client_comes_back,
    World.to_server_0,
    World.to_server_1,
    World.to_server_2,
    World.to_client,
    World.server_writes,
    World.server_answers,
    World.client_answers,
    World.server_finds_end,
]

#: All actions, and how often each is tried in a random order.
ACTIONS: dict[Action, int] = {
    World.client_sends: 8,
    World.client_asks: 3,
    World.client_acknowledges: 4,
    World.client_beats: 1,
    World.client_answers: 4,
    World.client_gives_up: 1,
    World.client_connects: 5,
    World.client_drops: 3,
    World.client_finds_end: 6,
    World.to_client: 20,
    World.to_server_0: 14,
    World.to_server_1: 10,
    World.to_server_2: 5,
    World.server_sends: 8,
    World.server_sends_latest: 4,
    World.server_asks: 3,
    World.server_answers: 4,
    World.server_writes: 20,
    World.server_acknowledges: 4,
    World.server_loses_0: 3,
    World.server_loses_1: 1,
    World.window_ends: 1,
    World.server_refuses: 1,
    World.server_closes: 1,
    World.cut_0: 2,
    World.cut_1: 1,
}


def random_actions(random: Random, count: int) -> list[Action]:
    """An order of actions, of which those that cannot happen are left out when it is played."""
    found = random.choices(list(ACTIONS), list(ACTIONS.values()), k=count)
    for ending, share in ((World.server_closes, 0.2), (World.window_ends, 0.3)):
        if random.random() > share:  # else few sessions are resumed often
            found = [action for action in found if action is not ending]
    return found


def play(actions: Iterable[Action], fault: Fault | None = None, kind: type[World] = World) -> World:
    """Raises `Violation`. Returns the world as it is at the end."""
    world = kind(fault)
    for action in actions:
        world.act(action)
    world.finish()
    return world


def shortest(
    actions: Sequence[Action], fault: Fault | None = None, kind: type[World] = World
) -> tuple[list[Action], Violation]:
    """A few of the actions that still break a promise, and how."""
    found, how = list(actions), _violation(actions, fault, kind)
    size = len(found)
    while size:
        for start in range(len(found) - size, -1, -size):
            fewer = found[:start] + found[start + size :]
            if (violation := _violation(fewer, fault, kind)) is not None:
                found, how = fewer, violation
        size //= 2
    assert how is not None, "these actions break nothing"
    return found, how


def _violation(actions: Iterable[Action], fault: Fault | None, kind: type[World]) -> Violation | None:
    try:
        play(actions, fault, kind)
    except Violation as violation:
        return violation
    return None


def explore(limits: Limits, fault: Fault | None = None, most: int = 10_000_000) -> int:
    """Play all orders of actions within the limits, and end each state in peace. Returns the number of states."""
    first = World(fault, limits)
    seen = {first.key()}
    states = [first]
    while states:
        further = []
        for state in states:
            for action in ACTIONS:
                world = state.copy()
                if not world.act(action):
                    continue
                key = world.key()
                if key not in seen:
                    seen.add(key)
                    further.append(world)
            state.finish()
        if len(seen) > most:
            raise ValueError(f"more than {most} states")
        states = further
    return len(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description="Play random orders of actions.")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=SystemRandom().getrandbits(32))
    parser.add_argument("--actions", type=int, default=150, help="of each run")
    parser.add_argument("--fault", choices=[fault.name for fault in Fault], help="a mistake that is to be found")
    parser.add_argument("--client", action="store_true", help="the client is the one of wsthreads.Client")
    options = parser.parse_args()
    fault = Fault[options.fault] if options.fault else None
    print(f"seed {options.seed}", flush=True)
    if not options.client:
        run(options, fault, World)
        return
    from tests.protocol.model_of_client import ClientWorld, acknowledging_as_often  # above this module

    with acknowledging_as_often():
        run(options, fault, ClientWorld)


def run(options: argparse.Namespace, fault: Fault | None, kind: type[World]) -> None:
    began, random = time.monotonic(), Random(options.seed)
    resumed = values = 0
    for number in range(options.runs):
        actions = random_actions(random, options.actions)
        try:
            world = play(actions, fault, kind)
        except Violation:
            found, violation = shortest(actions, fault, kind)
            names = ", ".join(action.__name__ for action in found)
            sys.exit(f"run {number} of seed {options.seed}: {violation}\n{names}")
        resumed += world.resumed
        values += len(world.taken) + sum(session.last for session in world.sessions)
    taken_s = time.monotonic() - began
    print(f"{options.runs:,} runs, {resumed:,} resumed sessions, {values:,} messages, {taken_s:.0f} s: nothing found")


if __name__ == "__main__":
    from tests.protocol import model_of_resume  # once, for those who import it

    model_of_resume.main()
