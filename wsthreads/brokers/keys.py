"""The keys in Redis, what each contains, and for how long.

Rooms are spread over `SHARDS`. All keys of one shard have the same hash tag. So in a Redis Cluster they are on one
node, and a script may use them together:

``{<prefix>:<shard>}:log:<path>:<room>``
    A stream, the room's *log*: the messages of the last `LOG_S` seconds, at most `LOG_ENTRIES`. Each entry has ``n``,
    its number; ``p``, the id of the entry before it; and ``m``, the message. Numbers begin with 1 and have no gaps. The
    first entry has ``0-0`` for ``p``.

    A channel has the same name (after the number of the database, unless that is 0). Each message is published there as
    ``<epoch> <number> <id> <id of the entry before it>\\n<message>``.

``{<prefix>:<shard>}:head:<path>:<room>``
    A hash, the log's *head*. ``epoch`` is a random name of the log; ``number`` and ``id`` are those of the last
    message. The head lives for `HEAD_S` seconds after the room's last use, longer than the entries. All entries of a
    log have one epoch: a log without a head gets a new head, and entries of an older log are deleted.

    ``@<sender>``, for each of the last senders, has the ticket of the sender's last message, and that message's number.
    A sender that received no answer publishes again; Redis skips tickets that it already has. ``senders`` counts these
    fields. If there are more than `MAX_SENDERS`, half of them are removed: those that have been silent for longest. If
    such a sender publishes again, the log has the message twice, and readers recognise its ticket.

    ``hold`` is for moving sessions, which need the log for longer than `LOG_S`. It has three numbers: from when and
    until when the log is needed, in milliseconds of Redis's clock, and the longest time for one session, in
    milliseconds. The head and the log live at least until then.

``{<prefix>:<shard>}:members:<path>:<room>``
    A hash: how many members each process has.

``{<prefix>:<shard>}:processes``
    A sorted set: until when each process counts as alive, in milliseconds of Redis's clock. A process extends this
    every `BEAT_S` seconds. Otherwise its members do not count. Each process has two entries: its name, and
    ``<name>.<number>``. The number changes after each break of the connection. Members are counted under the second
    entry. After a break, the first announcement of a room also removes the count under the earlier number. Presences
    stay.

``{<prefix>:<shard>}:presence:<path>:<room>``
    A hash: the presence of each session in the room that has set one. The field is ``<process> <session id>``. The
    value is a number, a space, and the result of `messages.presence_payload`. If the session's connection was lost, the
    number is the time until which the session stays, in milliseconds of Redis's clock; else 0. Only the session's
    process writes the field. Each change is published in the room's log by the same script. Any process removes the
    field (`REAP`) when that time is over, or when the session's process no longer counts as alive.

    The field ``<process>`` has the number of the process's last call that wrote here. So a late call from before a
    break changes nothing.

``{<prefix>:<shard>}:attributes:<path>:<room>``
    A hash: the room's attributes. The field is the key as JSON, and the value is JSON. ``size`` is their size in bytes,
    as one JSON object. ``@<field>`` is the claim of an update that others have overtaken: a random name, and until when
    others must not update the field, in milliseconds of Redis's clock. The hash lives for `room_keep_s`, and for
    `KEYS_S` longer while the room has members: their processes announce the room every `TOUCH_S`.

``{<prefix>:<shard>}:history:<path>:<room>``
    A list: the messages that the room's history keeps, the oldest first. An entry is the number and the id of the
    message in the log, the number and the id of the entry before it (``0 0-0`` for the first one of all), the bytes of
    the payload, and the message, with spaces between them. The list is as long as the limits allow, by number and bytes
    exactly; entries that are too old may still be there, and do not count. The list expires after `history_s`.

    In the log's head, ``kept`` is the number and the id of the last entry. Without ``kept``, the list is of another
    log, and does not count. ``kept_bytes`` is the sum of the payloads' bytes, ``kept_from`` the time of the first entry
    or an earlier time, and ``keep_ms`` how long messages are kept. The head lives at least that long.

``{<prefix>:<shard>}:settings:<path>``
    The limits of the histories of an endpoint: messages, milliseconds and bytes. The endpoint's processes write it
    every `BEAT_S`, for programs without a server. It lives for `history_s`, and for `KEYS_S` longer.

``{<prefix>:<shard>}:ban:<path>:<room>``
    For the hidden room of a user: the user's ban. The value is a JSON list of the close code and the reason; the key
    expires with the ban.

``{<prefix>:<shard>}:holders``
    A sorted set: the leases of processes that want to own rooms of the shard, and until when each lasts, in
    milliseconds of Redis's clock. A lease has the name of its process (with the number, as above). A process extends
    its lease by `LEASE_S`, every `RENEW_S` seconds. It trusts the lease for `MARGIN_S` less, from the time when it sent
    the call.

``{<prefix>:<shard>}:lease:<path>:<room>``
    A hash: who owns the room. ``holder`` is the lease under which the owner has it, and ``channel`` its wake channel.
    ``fence`` is the fencing number. A return of the room removes these fields. When the holder's lease has ended,
    another process may take the room. ``last`` is the fencing number of the last owner. The next number is higher, and
    at least Redis's time in milliseconds. ``done`` is how many posts the owner has handled. ``closing`` exists while
    the owner has no members, and no other process wants to own the room. ``@<lease>``, for each process that wants to
    own the room, has its wake channel.

``{<prefix>:<shard>}:posts:<path>:<room>``
    A list: the posts that wait for the owner. Each is the poster's wake channel, the poster's number for the post,
    until when it may be handled, when it was posted, and in further lines the sender and the value.

``{<prefix>:<shard>}:taken:<path>:<room>``
    A list: the posts that the owner has taken and not handled yet. They are lost when the owner dies: the process that
    takes the room then tells their posters.

``{<prefix>:<shard>}:session:<path>:<id>``
    The state of a session that moves between two processes, from `session_state`. Later, for a minute, ``taken
    <process> <a random name>`` if a process has taken it, or ``retracted <the mark of the state>`` if its own process
    has retracted it. The state lives for as long as the client may come back, and for `OVERDUE_S` longer.

    Or a text for the session's client, until the client can no longer come back: ``stuck`` and the digests of the
    session's secrets, if the session could not move; ``ended`` and the ending, if a process that has ended had closed
    the session.

``{<prefix>:<shard>}:away:<path>``
    A sorted set: the ids of moving sessions, and until when their clients may come back, in milliseconds of Redis's
    clock. All sessions of an endpoint are in the shard of its hidden room for single sessions.

    While a session is away, it is a member of its rooms, and of its user's hidden room: ``<id>.away`` is in their
    ``members`` and ``processes``.

``{<prefix>:<shard>}:wake:<process>``
    Only a channel: a process's writer wakes the process's own reader on it. Other messages on it are announcements of
    rooms, and answers to questions. An exclamation mark and the key of a lease mean that there is a post for the owner,
    or a room to own. An equals sign comes before outcomes of posts.

``{<prefix>:0}:ask``
    Only a channel: questions to all processes (see `questions`).

Epoch and number are a process's position in a log. After a break, the process compares its position with the head. So
it knows how many messages it has missed, even when their entries have expired. Another epoch, or a lower number, means
that Redis has lost its data, or has failed over to a replica that lagged. Then the process counts a possible loss, and
continues with the log as it is. Ids find entries, and distinguish two histories with the same numbers. They are never
compared by size, because Redis's clock may be set back.

All keys expire. Colons in a path are quoted in its key.

Processes with another version of the format (see `messages`) use the same names. They do not understand each other:
each drops and counts data of other versions. A process with version 1 makes log entries without a number.
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

#: How long a log keeps messages, and how many. A process that is cut off for longer loses messages.
LOG_S = 60
LOG_ENTRIES = 10_000

#: How long a head lives after the room's last use. A process that is cut off for longer cannot tell whether it has
#: missed messages.
HEAD_S = 600

#: The most senders whose last ticket a head has.
MAX_SENDERS = 256

#: How often a process reports that it is alive, and how long each report is valid.
BEAT_S = 2.0
ALIVE_S = 7

#: How long a lease lasts, how often it is extended, and how much shorter its process trusts it.
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

#: The suffix of the names under which moving sessions count as members. These names are among those of processes.
AWAY = ".away"

#: A session is kept this much longer than its client may be away, so that a process can call on_close.
OVERDUE_S = 30

#: The shard whose node publishes questions.
ASK_SHARD = 0

#: How many addresses of rooms without members in this process are cached.
ADDRESSES = 1024


class Address(NamedTuple):
    """The keys of a room, as bytes: names may have lone surrogates, which UTF-8 cannot encode."""

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
        """The keys of a room, by their names: fields of its address, or "processes"."""
        every = {**address._asdict(), "processes": self.processes(address.shard)}
        return [every[name] for name in names]

    def settings(self, path: str, shard: int) -> bytes:
        return f"{{{self._prefix}:{shard}}}:settings:{quote(path, safe='/', errors='surrogatepass')}".encode()

    def session(self, path: str, session_id: str) -> tuple[bytes, bytes]:
        """The keys of a moving session, and of all moving sessions of an endpoint."""
        shard = self.address(path, SESSIONS_ROOM).shard
        start, quoted = f"{{{self._prefix}:{shard}}}", quote(path, safe="/", errors="surrogatepass")
        return f"{start}:session:{quoted}:{session_id}".encode(), f"{start}:away:{quoted}".encode()

    def processes(self, shard: int) -> bytes:
        return f"{{{self._prefix}:{shard}}}:processes".encode()

    def holders(self, shard: int) -> bytes:
        return f"{{{self._prefix}:{shard}}}:holders".encode()

    def post_box(self, address: Address) -> list[bytes]:
        """The keys of a room for the scripts for posts: see `lease_scripts`."""
        shard = address.shard
        return [
            self.holders(shard), address.lease, address.posts, address.taken, address.members, self.processes(shard),
        ]  # fmt: skip

    def wake(self, process: str, shard: int = 0) -> tuple[bytes, bytes]:
        """A key, and the channel on which a process's writer wakes the process's own reader."""
        key = f"{{{self._prefix}:{shard}}}:wake:{process}".encode()
        return key, self._database.encode() + key

    def ask(self) -> tuple[bytes, bytes]:
        """A key, and the channel of questions to all processes. It is in `ASK_SHARD`."""
        key = f"{{{self._prefix}:{ASK_SHARD}}}:ask".encode()
        return key, self._database.encode() + key
