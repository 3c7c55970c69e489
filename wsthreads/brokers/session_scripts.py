"""The Lua scripts for sessions that move between two processes. `keys` describes the data.

Two keys are those of a session: `session` has its state, and `away` is the list of all moving sessions of the endpoint.
The *text* of a process or of a retraction is a value that replaces the state.
"""

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

#: The first bytes of a value, this many, are different for any two values of one session.
SEEN_BYTES = 64

#: How long Redis remembers that a process has taken a session, or has retracted it.
MARK_S = 60

# Defines `value`: the value at the session's key, or nil. KEYS: session, away. A key of another type is ignored, so
# that it does not disturb other sessions.
_VALUE = """
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' then
  if not string.find(value.err, 'WRONGTYPE', 1, true) then
    return value
  end
  value = 'a key of another type'
end
"""

#: Stores a session. KEYS: session, away. ARGV: the state; for how many milliseconds the client may come back; for how
#: many more milliseconds the state is kept; the session's id; the text that `RETRACT` writes for this state. Returns 1,
#: or 0 if the state was retracted before.
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

#: Stores values for the clients of sessions. KEYS: sessions. ARGV: for each session, the value from `stuck` or
#: `encode_end`, and for how many milliseconds it is kept.
TELL = """
for i = 1, #ARGV, 2 do
  redis.call('SET', KEYS[(i + 1) / 2], ARGV[i], 'PX', ARGV[i + 1])
end
return 1
"""

#: Returns the state of a session, or the text of the process that has taken it, or nothing. KEYS: session, away.
LOOK = f"""
{_VALUE}
return value or ''
"""

#: Gives a session to a process. KEYS: session, away. ARGV: the first line of the state; the text of the process that
#: takes the session; the session's id. Returns 1 if this process has the session now, otherwise 0. The call may be
#: repeated.
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

#: Retracts a state. KEYS: session, away. ARGV: the first line of the state; the text of the retraction; the session's
#: id. Returns 0 if a process has taken the state. If it returns 1, no process will take the state, even if the call of
#: `STORE` arrives later.
RETRACT = f"""
{_VALUE}
if value and value ~= ARGV[2] and string.sub(value, 1, #ARGV[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', {MARK_S * 1000})
redis.pcall('ZREM', KEYS[2], ARGV[3])
return 1
"""

#: Returns ids of sessions whose time is over. Other processes do not get these ids in the next five seconds. KEYS:
#: session with an empty id, away. ARGV: the largest number of ids.
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

#: Removes a session from the list of moving sessions, unless its value has changed. KEYS: session, away. ARGV: the
#: first `SEEN_BYTES` of the value that `LOOK` has returned; the session's id.
DROP = f"""
{_VALUE}
if string.sub(value or '', 1, {SEEN_BYTES}) == ARGV[1] then
  redis.pcall('ZREM', KEYS[2], ARGV[2])
end
return 1
"""

#: Returns 1 if a session is stored and its client may still come back, otherwise 0. KEYS: session, away. ARGV: the
#: session's id.
WAITS = f"""
{NOW}
local due = redis.pcall('ZSCORE', KEYS[2], ARGV[1])
return type(due) == 'string' and tonumber(due) >= now and 1 or 0
"""

#: Returns the names under which moving sessions count as members. KEYS: members, processes.
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

#: Returns the names of the processes that have members and count as alive. KEYS: members, processes.
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

#: Counts a moving session as one member, and lets the log keep all later messages. KEYS: log, head, members, processes.
#: ARGV: the name of the moving session; for how many milliseconds.
HOLD = f"""
{NOW} {LIVE_ON} {HOLD_LOG}
local life = math.max({KEYS_S * 1000}, tonumber(ARGV[2]))
redis.call('ZADD', KEYS[4], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
live_on(KEYS[4], life)
redis.call('HSET', KEYS[3], ARGV[1], '1')
live_on(KEYS[3], life)
return 1
"""

#: Lets the log keep all later messages, and counts no member. The script is for the log of messages to single sessions.
#: KEYS: log, head. ARGV: as for `HOLD`.
HOLD_SENT = f"{NOW} {LIVE_ON} {HOLD_LOG} return 1"

#: Stops counting a moving session as a member. KEYS: members, processes, presence. ARGV: the name of the moving
#: session; a field of the presence hash, or an empty text. Removes this field, because the session has another field by
#: now.
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
    """The value that replaces a state when a process takes it."""
    return f"taken {process} {token}"


def stuck(secrets: list[str]) -> str:
    """The value in place of a state that could not be stored. This value has the digests of the session's secrets."""
    return " ".join(("stuck", *secrets))


def retracted(head: bytes) -> str:
    """The value that replaces a state when its process retracts it."""
    return f"retracted {head.split()[-1].decode()}"
