"""The Lua scripts for sessions that move between two processes. `keys` describes what they read and write."""

from __future__ import annotations

from wsthreads.brokers.keys import AWAY, KEYS_S
from wsthreads.brokers.log_scripts import HOLD_LOG, LIVE_ON, NOW

__all__ = [
    "AWAY_IN",
    "CLAIM",
    "DROP",
    "FREE",
    "HOLD",
    "HOLD_SENT",
    "LISTENERS",
    "LOOK",
    "MARK_S",
    "OVERDUE",
    "RETRACT",
    "SEEN_BYTES",
    "STORE",
    "TELL",
    "WAITS",
    "away_name",
    "claimed",
    "retracted",
    "stuck",
]

#: How many bytes at the beginning of a value tell two values of one session apart.
SEEN_BYTES = 64

#: How long Redis remembers which process has taken a session, or that its process has retracted it.
MARK_S = 60

# KEYS: session, away. `value` is the value at the session's key, if any. A key of another type is ignored, so that it
# disturbs no other session.
_VALUE = """
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' then
  if not string.find(value.err, 'WRONGTYPE', 1, true) then
    return value
  end
  value = 'a key of another type'
end
"""

#: KEYS: session, away. ARGV: the state; for how many milliseconds its client may come back, and for how many more the
#: state stays; the session's id; the text that `RETRACT` has written. Returns 0 if the state was retracted before.
STORE = f"""
{NOW}
{_VALUE}
if value == ARGV[5] then
  return 0
end
local life = tonumber(ARGV[2]) + tonumber(ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', string.format('%.0f', life))
local due = string.format('%.0f', now + tonumber(ARGV[2]))
if type(redis.pcall('ZADD', KEYS[2], due, ARGV[4])) == 'table' then  -- a key of another type
  redis.call('DEL', KEYS[2])
  redis.call('ZADD', KEYS[2], due, ARGV[4])
end
if redis.call('PTTL', KEYS[2]) < life then
  redis.call('PEXPIRE', KEYS[2], string.format('%.0f', life))
end
return 1
"""

#: KEYS: sessions. ARGV: for each, the value for its client, from `stuck` or `encode_end`, and for how many milliseconds
#: it stays.
TELL = """
for i = 1, #ARGV, 2 do
  redis.call('SET', KEYS[(i + 1) / 2], ARGV[i], 'PX', ARGV[i + 1])
end
return 1
"""

#: KEYS: session, away. Returns the state, the text of the process that has taken it, or nothing.
LOOK = f"""
{_VALUE}
return value or ''
"""

#: KEYS: session, away. ARGV: the first line of the state, the text of the process that takes it, the session's id.
#: Returns 1 if this process has it now, else 0. May be repeated.
CLAIM = f"""
{_VALUE}
if value == ARGV[2] then
  return 1
end
if not value or string.sub(value, 1, #ARGV[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', {MARK_S * 1000})
redis.pcall('ZREM', KEYS[2], ARGV[3])
return 1
"""

#: KEYS: session, away. ARGV: the first line of the state, the text of a retraction, the session's id. Returns 0 if a
#: process has taken the state. Otherwise none will take it, even if `STORE` comes late.
RETRACT = f"""
{_VALUE}
if value and value ~= ARGV[2] and string.sub(value, 1, #ARGV[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', {MARK_S * 1000})
redis.pcall('ZREM', KEYS[2], ARGV[3])
return 1
"""

#: KEYS: session of no id, away. ARGV: a number. Returns at most that many ids of sessions whose time is over. Other
#: processes do not get these in the next five seconds.
OVERDUE = f"""
{NOW}
local ids = redis.pcall('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[1])
if ids.err then
  return string.find(ids.err, 'WRONGTYPE', 1, true) and {{}} or ids
end
for i = 1, #ids do
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + 5000), ids[i])
end
return ids
"""

#: KEYS: session, away. ARGV: the first `SEEN_BYTES` of the value from `LOOK`, the session's id. Removes the session
#: from the list of moving sessions, unless its value has changed.
DROP = f"""
{_VALUE}
if string.sub(value or '', 1, {SEEN_BYTES}) == ARGV[1] then
  redis.pcall('ZREM', KEYS[2], ARGV[2])
end
return 1
"""

#: KEYS: session, away. ARGV: the session's id. Returns 1 if it is stored and its client may still come back, else 0.
WAITS = f"""
{NOW}
local due = redis.pcall('ZSCORE', KEYS[2], ARGV[1])
return type(due) == 'string' and tonumber(due) >= now and 1 or 0
"""

#: KEYS: members, processes. Returns the names under which moving sessions count as members.
AWAY_IN = f"""
{NOW}
local found = {{}}
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local due = string.sub(name, -{len(AWAY)}) == '{AWAY}' and redis.call('ZSCORE', KEYS[2], name)
  if due and tonumber(due) >= now then
    found[#found + 1] = name
  end
end
return found
"""

#: KEYS: members, processes. Returns the names of the processes that have members and count as alive.
LISTENERS = f"""
{NOW}
local found = {{}}
for _, process in ipairs(redis.call('HKEYS', KEYS[1])) do
  local alive = redis.call('ZSCORE', KEYS[2], process)
  if alive and tonumber(alive) >= now then
    found[#found + 1] = process
  end
end
return found
"""

#: KEYS: log, head, members, processes. ARGV: the name of a moving session, for how many milliseconds. Counts one member
#: under this name, and lets the log keep all later messages.
HOLD = f"""
{NOW} {LIVE_ON} {HOLD_LOG}
local life = math.max({KEYS_S * 1000}, tonumber(ARGV[2]))
redis.call('ZADD', KEYS[4], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
live_on(KEYS[4], life)
redis.call('HSET', KEYS[3], ARGV[1], '1')
live_on(KEYS[3], life)
return 1
"""

#: KEYS: log, head. ARGV: as for `HOLD`. Only lets the log keep all later messages; for the log of messages to single
#: sessions.
HOLD_SENT = f"{NOW} {LIVE_ON} {HOLD_LOG} return 1"

#: KEYS: members, processes, presence. ARGV: the name; a field of the presence, or nothing. Stops counting this member,
#: and removes the field, because the session has another one by now.
FREE = """
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[2] ~= '' then
  redis.call('HDEL', KEYS[3], ARGV[2])
end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""


def away_name(session_id: str) -> str:
    """The name under which a moving session counts as a member."""
    return f"{session_id}{AWAY}"


def claimed(process: str, token: str) -> str:
    """The value in place of a state that a process has taken."""
    return f"taken {process} {token}"


def stuck(secrets: list[str]) -> str:
    """The value in place of a state that could not be stored, with the digests of the session's secrets."""
    return " ".join(("stuck", *secrets))


def retracted(head: bytes) -> str:
    """The value in place of a state that its process has retracted."""
    return f"retracted {head.split()[-1].decode()}"
