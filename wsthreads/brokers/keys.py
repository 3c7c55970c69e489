"""The keys in Redis: what each key contains, and how long it lives.

Rooms are spread over `SHARDS` shards. All keys of one shard have the same hash tag. So in a Redis Cluster they are on
one node, and a script may use them together:

``{<prefix>:<shard>}:log:<path>:<room>``
    A stream, the room's *log*: the messages of the last `LOG_S` seconds, at most `LOG_ENTRIES`. Each entry has three
    fields: ``n`` is its number, ``p`` is the id of the entry before it, and ``m`` is the message. The numbers begin
    with 1 and have no gaps. In the first entry, ``p`` is ``0-0``.

    There is a channel with the same name. If the database is not 0, its number comes before the name. Each message is
    published there as ``<epoch> <number> <id> <id of the entry before it>\\n<message>``.

``{<prefix>:<shard>}:head:<path>:<room>``
    A hash, the log's *head*. ``epoch`` is a random name of the log; ``number`` and ``id`` are those of the last
    message. The head lives for `HEAD_S` seconds after the room's last use, longer than the entries. All entries of a
    log have one epoch. If there is no head, a script makes a new one, and deletes the entries.

    ``@<sender>`` has the ticket of the last message of this sender, and that message's number. There is such a field
    for each of the last senders. A sender that received no answer publishes its messages again; Redis skips tickets
    that it already has. ``senders`` counts these fields. If there are more than `MAX_SENDERS`, the half with the oldest
    messages is removed. If such a sender publishes a message again, the log has the message twice, but readers
    recognise its ticket.

    ``hold`` is for moving sessions, which need the log for longer than `LOG_S`. It has three numbers: from when and
    until when the log is needed, in milliseconds of Redis's clock, and the longest time that one of these sessions
    needs it, in milliseconds. The head and the log live at least until the second of these times.

``{<prefix>:<shard>}:members:<path>:<room>``
    A hash: how many members of the room each process has.

``{<prefix>:<shard>}:processes``
    A sorted set: until when each process counts as alive, in milliseconds of Redis's clock. A process extends this
    every `BEAT_S` seconds. If it does not, its members no longer count. Each process has two entries: its name, and
    ``<name>.<number>``. The number changes after each break of the connection. Members are counted under the second
    entry. After a break, the first announcement of a room also removes the count under the earlier entry. Presences are
    kept under the name without a number, so they stay.

``{<prefix>:<shard>}:presence:<path>:<room>``
    A hash: the presence of each session in the room that has set one. The field is ``<process> <session id>``. The
    value is a number, a space, and the result of `messages.presence_payload`. If the session's connection was lost, the
    number is the time until which the session stays, in milliseconds of Redis's clock. Otherwise the number is 0. Only
    the session's process writes the field. Each change is published in the room's log by the same script. Any process
    removes the field (`REAP`) when that time is over, or when the session's process no longer counts as alive.

    The field ``<process>`` has the number of the process's last call that wrote to this hash. A call that was sent
    before a break and arrives late has a lower number, and changes nothing.

``{<prefix>:<shard>}:attributes:<path>:<room>``
    A hash: the room's attributes. The field is the key as JSON, and the value is JSON. ``size`` is their size in bytes,
    as one JSON object. ``@<field>`` is the claim of an update that has to be repeated, because another process has
    changed the value: a random name, and until when no other update may change the field, in milliseconds of Redis's
    clock. The hash lives for `room_keep_s`, and for `KEYS_S` longer while the room has members: their processes
    announce the room every `TOUCH_S`.

``{<prefix>:<shard>}:history:<path>:<room>``
    A list: the messages that the room's history keeps, the oldest first. An entry is the number and the id of the
    message in the log, the number and the id of the entry before it (``0 0-0`` for the first one of all), the bytes of
    the payload, and the message, with spaces between them. The list never exceeds the limits for the number and the
    bytes of messages. Entries that are too old may still be in the list; readers ignore them. The list expires after
    `history_s`.

    In the log's head, ``kept`` is the number and the id of the last entry. If there is no ``kept``, the list belongs to
    another log, and is ignored. ``kept_bytes`` is the sum of the payloads' bytes. ``kept_from`` is the time of the
    first entry, or an earlier time. ``keep_ms`` is how long messages are kept. The head lives at least that long.

``{<prefix>:<shard>}:settings:<path>``
    The limits of the histories of an endpoint: messages, milliseconds and bytes. The endpoint's processes write this
    key every `BEAT_S`, for programs without a server. The key lives for `history_s`, and for `KEYS_S` longer.

``{<prefix>:<shard>}:ban:<path>:<room>``
    For the hidden room of a user: the user's ban. The value is a JSON list of the close code and the reason; the key
    expires with the ban.

``{<prefix>:<shard>}:holders``
    A sorted set: the leases of processes that want to own rooms of the shard, and until when each lasts, in
    milliseconds of Redis's clock. A lease is named like the second entry of its process in ``processes``:
    ``<name>.<number>``. A process extends its lease by `LEASE_S`, every `RENEW_S` seconds. The process relies on the
    lease for `MARGIN_S` less, counted from the time when it sent the call.

``{<prefix>:<shard>}:lease:<path>:<room>``
    A hash: who owns the room. ``holder`` is the lease of the owner, and ``channel`` is the owner's wake channel.
    ``fence`` is the fencing number. When the owner returns the room, these fields are removed. When the holder's lease
    has ended, another process may take the room. ``last`` is the fencing number of the last owner. The next number is
    higher, and at least Redis's time in milliseconds. ``done`` is how many posts the owner has handled. ``closing``
    exists while the owner has no members, and no other process wants to own the room. ``@<lease>`` exists for each
    process that wants to own the room, and has that process's wake channel.

``{<prefix>:<shard>}:posts:<path>:<room>``
    A list: the posts that wait for the owner. Each has in its first line the wake channel of the process that posted,
    that process's number for the post, until when the post may be handled, and when it was posted. Further lines have
    the sender and the value.

``{<prefix>:<shard>}:taken:<path>:<room>``
    A list: the posts that the owner has taken and not handled yet. These posts are lost if the owner dies. The process
    that takes the room next then tells the processes that posted.

``{<prefix>:<shard>}:session:<path>:<id>``
    The state of a session that moves between two processes, from `session_state`. When a process has taken the session,
    the value is ``taken <process> <a random name>`` for a minute. When the session's own process has retracted the
    state, the value is ``retracted <the mark of the state>`` for a minute. The state lives for as long as the client
    may come back, and for `OVERDUE_S` longer.

    Or a text for the session's client, until the client can no longer come back. If the session could not move, the
    text is ``stuck`` and the digests of the session's secrets. If a process that has ended had closed the session, the
    text is ``ended`` and the ending.

``{<prefix>:<shard>}:away:<path>``
    A sorted set: the ids of moving sessions, and until when their clients may come back, in milliseconds of Redis's
    clock. All sessions of an endpoint are in the shard of its hidden room for single sessions.

    While a session moves, it still counts as a member of its rooms, and of its user's hidden room: ``<id>.away`` is in
    the ``members`` and ``processes`` of these rooms.

``{<prefix>:<shard>}:wake:<process>``
    Only a channel: a process's writer wakes the process's own reader on it. Other messages on it are announcements of
    rooms, and answers to questions. A message of an exclamation mark and the key of a lease means one of two things:
    there is a post for the owner, or the room is free to own. A message that begins with an equals sign has outcomes of
    posts.

``{<prefix>:0}:ask``
    Only a channel: questions to all processes (see `questions`).

Epoch and number are a process's position in a log. After a break, the process compares its position with the head. So
the process knows how many messages it has missed, even when their entries have expired. Another epoch, or a lower
number, means that Redis has lost its data, or has failed over to a replica that lagged. Then the process counts a
possible loss, and continues with the log as it is. Ids find entries, and distinguish two histories with the same
numbers. Ids are never compared by size, because Redis's clock may be set back.

All keys expire. Colons in a path are quoted in its key.

Processes with another version of the format (see `messages`) use the same keys. Such processes do not understand each
other. Each process drops and counts data of other versions. A process with version 1 makes log entries without a
number.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote
from zlib import crc32

from wsthreads.rooms.names import SESSIONS_ROOM

__all__ = [
    "ALIVE_S",
    "ASK_SHARD",
    "BEAT_S",
    "HEAD_S",
    "KEYS_S",
    "LEASE_S",
    "LOG_ENTRIES",
    "LOG_S",
    "MARGIN_S",
    "MAX_SENDERS",
    "OVERDUE_S",
    "OWNED_S",
    "PRESENCE_S",
    "RENEW_S",
    "SHARDS",
    "TOUCH_S",
    "Address",
    "Keys",
]

#: The number of shards. All processes must use the same number.
SHARDS = 16

#: How many seconds a log keeps messages, and how many messages. A process that is cut off from Redis for longer loses
#: messages.
LOG_S = 60
LOG_ENTRIES = 10_000

#: How long a head lives after the room's last use. A process that is cut off from Redis for longer cannot tell whether
#: it has missed messages.
HEAD_S = 600

#: For how many senders a head has the last ticket, at most.
MAX_SENDERS = 256

#: How often a process reports that it is alive, and how long each report is valid.
BEAT_S = 2.0
ALIVE_S = 7

#: How long a lease lasts after it was extended, how often it is extended, and how much sooner its process stops to rely
#: on it.
LEASE_S = 2.6
RENEW_S = 0.5
MARGIN_S = 0.2

#: How long the keys of a room's lease live. The owner, and processes that want the room, use them every `TOUCH_S`.
OWNED_S = 600

#: How long other keys live after their last use. A process uses the keys of its rooms every `TOUCH_S`.
KEYS_S = 60
TOUCH_S = 20.0


#: How long presences live after the last use of their room.
PRESENCE_S = 600

#: The suffix of the names under which moving sessions count as members. In `members` and `processes`, these names are
#: among those of processes.
AWAY = ".away"

#: The state of a session is kept this much longer than its client may be away. In this time, a process can end the
#: session and call its on_close.
OVERDUE_S = 30

#: The shard whose node publishes questions.
ASK_SHARD = 0

#: How many addresses of rooms are cached. A subscription has its own copy of its room's address.
ADDRESSES = 1024


class Address(NamedTuple):
    """The keys of a room, as bytes, because names of rooms may have lone surrogates, which UTF-8 cannot encode."""

    shard: int
    log: bytes
    head: bytes
    members: bytes
    channel: bytes
    presence: bytes
    ban: bytes
    history: bytes
    settings: bytes
    attributes: bytes
    lease: bytes
    posts: bytes
    taken: bytes


class Keys:
    """The names of keys and channels under a prefix."""

    def __init__(self, prefix: str, database: int) -> None:
        self._prefix = prefix
        self._database = f"{database}:" if database else ""
        self.address = lru_cache(ADDRESSES)(self._address)

    def _address(self, path: str, name: str) -> Address:
        room = f"{quote(path, safe='/', errors='surrogatepass')}:{name}".encode("utf-8", "surrogatepass")
        shard = crc32(room) % SHARDS
        kinds = [field for field in Address._fields if field not in ("shard", "channel", "settings")]
        keys = {kind: f"{{{self._prefix}:{shard}}}:{kind}:".encode() + room for kind in kinds}
        settings = self.settings(path, shard)
        return Address(shard, channel=self._database.encode() + keys["log"], settings=settings, **keys)

    def of_room(self, address: Address, names: Iterable[str]) -> list[bytes]:
        """The keys of a room, by the names of the keys: fields of its address, or "processes"."""
        every = {**address._asdict(), "processes": self.processes(address.shard)}
        return [every[name] for name in names]

    def settings(self, path: str, shard: int) -> bytes:
        return f"{{{self._prefix}:{shard}}}:settings:{quote(path, safe='/', errors='surrogatepass')}".encode()

    def session(self, path: str, session_id: str) -> tuple[bytes, bytes]:
        """Two keys: that of one moving session, and that of all moving sessions of an endpoint."""
        shard = self.address(path, SESSIONS_ROOM).shard
        start, quoted = f"{{{self._prefix}:{shard}}}", quote(path, safe="/", errors="surrogatepass")
        return f"{start}:session:{quoted}:{session_id}".encode(), f"{start}:away:{quoted}".encode()

    def processes(self, shard: int) -> bytes:
        return f"{{{self._prefix}:{shard}}}:processes".encode()

    def holders(self, shard: int) -> bytes:
        return f"{{{self._prefix}:{shard}}}:holders".encode()

    def post_box(self, address: Address) -> list[bytes]:
        """The keys of a room that the scripts for posts get (see `lease_scripts`)."""
        shard = address.shard
        return [
            self.holders(shard), address.lease, address.posts, address.taken, address.members, self.processes(shard),
        ]  # fmt: skip

    def wake(self, process: str, shard: int = 0) -> tuple[bytes, bytes]:
        """A key of this shard, and the channel with the same name.

        A process's writer wakes the process's own reader on it.
        """
        key = f"{{{self._prefix}:{shard}}}:wake:{process}".encode()
        return key, self._database.encode() + key

    def ask(self) -> tuple[bytes, bytes]:
        """A key of the shard `ASK_SHARD`, and the channel with the same name, for questions to all processes."""
        key = f"{{{self._prefix}:{ASK_SHARD}}}:ask".encode()
        return key, self._database.encode() + key
