"""The attributes of rooms, in Redis: all processes share them.

Each call is one script, so each change is atomic for all processes. If another process changes a value during an
update, the update is repeated with the new value after a short pause. While Redis is unavailable, a read returns the
last value that this process knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import SystemRandom
from threading import Lock
from time import sleep
from typing import Any

from wsthreads.brokers.keys import KEYS_S
from wsthreads.brokers.log_scripts import NOW
from wsthreads.errors import BrokerError
from wsthreads.loggers import get_logger
from wsthreads.rooms.attributes import EMPTY_BYTES, Attributes, entry_bytes, lost_fence, too_big
from wsthreads.rooms.json_text import is_json_text
from wsthreads.threads.flusher import Timers
from wsthreads.threads.lookups import look_up

__all__ = ["Call", "SharedAttributes", "StoredAttributes"]

log = get_logger(__name__)

#: KEYS: attributes. ARGV: a field. Returns its value, or nothing.
READ = "return redis.call('HGET', KEYS[1], ARGV[1]) or ''"

#: KEYS: attributes. Returns all fields and values.
READ_ALL = "return redis.call('HGETALL', KEYS[1])"

#: An update whose value was changed by another process claims the attribute for this time. Meanwhile other updates
#: cannot change the value.
CLAIM_S = 1.0

#: KEYS: attributes, members, lease. ARGV: the maximum number of bytes; how long to keep the attributes, in
#: milliseconds; a fencing number or nothing; the field; the number of bytes that the field and its value need; the
#: value, or nothing to remove it. A conditional change has two more arguments: the value that must be stored now
#: (nothing if there must be no value), and a claim or nothing. Returns the result, and the old value or the size that
#: exceeds the limit.
WRITE = f"""
if ARGV[3] ~= '' and redis.call('HGET', KEYS[3], 'fence') ~= ARGV[3] then
  return {{'over', ''}}
end
local field, value, answer = ARGV[4], ARGV[6], 'done'
local old = redis.call('HGET', KEYS[1], field) or ''
if ARGV[7] then
  {NOW}
  local claim = redis.call('HGET', KEYS[1], '@' .. field)
  if claim then
    local who, till = string.match(claim, '^(%S+) (%d+)$')
    if who ~= ARGV[8] and whole(till) > now and whole(till) <= now + {CLAIM_S * 1000:.0f} then
      return {{'changed', old}}
    end
  end
  if old ~= ARGV[7] then
    if ARGV[8] == '' then
      return {{'changed', old}}
    end
    redis.call('HSET', KEYS[1], '@' .. field, ARGV[8] .. ' ' .. string.format('%.0f', now + {CLAIM_S * 1000:.0f}))
    answer = 'changed'
  elseif claim then
    redis.call('HDEL', KEYS[1], '@' .. field)
  end
end
if answer == 'done' then
  local size = tonumber(string.match(redis.call('HGET', KEYS[1], 'size') or '', '^%d+$')) or {EMPTY_BYTES}
  if old ~= '' then
    size = size - #field - #old - 2
  end
  if value ~= '' then
    size = size + tonumber(ARGV[5])
    if size > tonumber(ARGV[1]) then
      return {{'full', string.format('%.0f', size)}}
    end
    redis.call('HSET', KEYS[1], field, value, 'size', string.format('%.0f', size))
  elseif old ~= '' then
    redis.call('HDEL', KEYS[1], field)
    redis.call('HSET', KEYS[1], 'size', string.format('%.0f', size))
    if size == {EMPTY_BYTES} then
      redis.call('DEL', KEYS[1])
    end
  end
end
local keep = tonumber(ARGV[2])
if #redis.call('HGETALL', KEYS[2]) > 0 then
  keep = keep + {KEYS_S * 1000}
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', keep))
return {{answer, old}}
"""

#: A function that calls a script for a room. It gets the room's name, the script, the names of the keys, and the
#: arguments. Raises `BrokerError`.
Call = Callable[..., Any]

#: The longest pause, in seconds, before an update is repeated because another process has changed the value.
PAUSE_S = 0.001


class StoredAttributes(Attributes):
    """Keeps attributes in Redis. `call` calls the scripts. Any thread."""

    def __init__(self, call: Call, **parts: Any) -> None:
        super().__init__(**parts)
        self._call_script = call

    def all(self, name: str) -> dict[str, str]:
        stored = self._call_script(name, READ_ALL, ["attributes"])
        found: dict[str, str] = {}
        for field, value in zip(stored[::2], stored[1::2], strict=True):
            if field.startswith(b'"'):
                key = _key(name, field)
                found[key] = _text(name, key, value)
        return found

    def _get(self, name: str, key: str) -> str | None:
        stored: bytes = self._call_script(name, READ, ["attributes"], _field(key))
        return _text(name, key, stored) if stored else None

    def _put(self, name: str, key: str, text: str, fence: int | None) -> None:
        self._write(name, key, text, fence)

    def _swap(
        self, name: str, key: str, before: str | None, after: str, fence: int | None, claim: str
    ) -> tuple[bool, str | None]:
        is_done, old = self._write(name, key, after, fence, before or "", claim)
        return is_done, after if is_done else old

    def _delete(self, name: str, key: str, fence: int | None) -> bool:
        return self._write(name, key, "", fence)[1] is not None

    def _write(self, name: str, key: str, text: str, fence: int | None, *only_from: str) -> tuple[bool, str | None]:
        """Set or remove a value. Returns whether this was done, and an empty text if there was a value before.

        `only_from` has two texts: the value that must be stored now, and a claim. If another value is stored, changes
        nothing and returns false and the stored value.
        """
        field, added = _field(key), entry_bytes(key, text) if text else 0
        if EMPTY_BYTES + added > self.max_bytes:
            raise too_big(name, key, EMPTY_BYTES + added, self.max_bytes)
        arguments = (self.max_bytes, int(self.keep_s * 1000), "" if fence is None else fence, field, added, text)
        keys = ["attributes", "members", "lease"]
        what, old = self._call_script(name, WRITE, keys, *arguments, *only_from)
        if what == b"over":
            assert fence is not None
            raise lost_fence(name, fence)
        if what == b"full":
            raise too_big(name, key, int(old), self.max_bytes)
        if what == b"changed":
            return False, _text(name, key, old) if old else None
        return True, "" if old else None

    def _pause(self) -> None:
        sleep(SystemRandom().uniform(0, PAUSE_S))


def _field(key: str) -> bytes:
    """The field for a key: its JSON text. (The field ``size`` is not a key.)"""
    return json.dumps(key, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _key(name: str, field: bytes) -> str:
    with suppress(ValueError):
        key = json.loads(field.decode("utf-8", "surrogatepass"))
        if isinstance(key, str):
            return key
    raise BrokerError(f"Redis has a malformed attribute of the room {name!r:.80}: a key of {len(field)} bytes")


def _text(name: str, key: str, stored: bytes) -> str:
    with suppress(UnicodeDecodeError):
        text = stored.decode()
        if is_json_text(text):
            return text
    raise BrokerError(
        f"Redis has a malformed attribute {key!r:.80} of the room {name!r:.80}: {len(stored)} bytes that are not JSON"
    )


class _Known:
    """The attributes of one room that this process remembers."""

    __slots__ = ("_size", "is_complete", "texts")

    def __init__(self, *, is_complete: bool = False) -> None:
        self.texts: dict[str, str] = {}
        self._size = EMPTY_BYTES
        #: Whether `texts` has all attributes of the room.
        self.is_complete = is_complete

    def put(self, key: str, text: str | None, max_bytes: int) -> None:
        """Remember a value, or with `text` None that there is none.

        If the remembered values exceed `max_bytes`, forget the others.
        """
        old = self.texts.pop(key, None)
        if old is not None:
            self._size -= entry_bytes(key, old)
        if text is None:
            return
        added = entry_bytes(key, text)
        if self._size + added > max_bytes:
            self.texts.clear()
            self._size, self.is_complete = EMPTY_BYTES, False
        self.texts[key] = text
        self._size += added


class SharedAttributes(StoredAttributes):
    """The attributes of the rooms of an app. `has_members` says whether a room has members in this process.

    For rooms with members in this process, this object remembers the values that were read and written. While Redis is
    unavailable, it uses these values.
    """

    def __init__(self, call: Call, *, timers: Timers, has_members: Callable[[str], bool], **parts: Any) -> None:
        super().__init__(call, **parts)
        self.timers = timers
        self._has_members = has_members
        self._known: dict[str, _Known] = {}
        self._is_away = False

    def _begin(self) -> None:
        super()._begin()
        self._noting = Lock()  # guards the remembered values; no other lock is taken while it is held

    def give_up(self) -> None:
        super().give_up()
        self._known = {}

    def forget(self, name: str) -> None:
        with self._noting:
            self._known.pop(name, None)

    def all(self, name: str) -> dict[str, str]:
        try:
            found = super().all(name)
        except BrokerError as error:
            with self._noting:
                known = look_up(self._known, name)
                if known is None or not known.is_complete:
                    raise
                found = known.texts.copy()
            self._complain(error)
        else:
            self._note(name, found, is_complete=True)
        return found

    def _get(self, name: str, key: str) -> str | None:
        try:
            return self._fresh(name, key)
        except BrokerError as error:
            with self._noting:
                known = look_up(self._known, name)
                if known is None or not (known.is_complete or key in known.texts):
                    raise
                text = look_up(known.texts, key)
            self._complain(error)
            return text

    def _fresh(self, name: str, key: str) -> str | None:
        text = super()._get(name, key)
        self._note(name, {key: text})
        return text

    def _write(self, name: str, key: str, text: str, fence: int | None, *only_from: str) -> tuple[bool, str | None]:
        is_done, old = super()._write(name, key, text, fence, *only_from)
        self._note(name, {key: (text or None) if is_done else old})
        return is_done, old

    def _note(self, name: str, texts: Mapping[str, str | None], *, is_complete: bool = False) -> None:
        """Remember the values that Redis has returned. `is_complete`: these are all attributes of the room."""
        self._is_away = False
        with self._noting:
            known = _Known(is_complete=True) if is_complete else look_up(self._known, name) or _Known()
            self._known[name] = known
            for key, text in texts.items():
                known.put(key, text, self.max_bytes)
        if not self._has_members(name):
            self.forget(name)

    def _complain(self, error: BrokerError) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning("attributes of rooms are read from this process's copies, which may be old: %s", error)
