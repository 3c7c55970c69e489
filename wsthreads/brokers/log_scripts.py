"""The Lua scripts that write and read the log of a room, and its history. `keys` describes the data."""

from __future__ import annotations

from wsthreads.brokers.keys import HEAD_S, LOG_ENTRIES, LOG_S, MAX_SENDERS

__all__ = [
    "APPEND",
    "EPOCH",
    "FETCH",
    "HEAD",
    "HISTORY",
    "HOLD_LOG",
    "LIVE_ON",
    "NOW",
    "PUBLISH",
    "PUBLISH_KEPT",
    "SHARE_LIMITS",
    "TRIM",
    "WHOLE",
]

#: Defines `whole`. It returns a whole number that a script has written as text. For any other value, and for nil, it
#: returns 0.
WHOLE = """
local function whole(text)
  return text and #text <= 16 and tonumber(string.match(text, '^%d+$')) or 0
end
"""

# Defines `is_head` and `begin`. `is_head` tells whether a script has written this head of a log: epoch, number and id.
# `begin` makes a log. `begin` keeps the field `hold`, because a moving session may already need the log.
_IS_HEAD = """
local function is_head(head)
  local time, nth = string.match(head[3] or '', '^(%d+)%-(%d+)$')
  return head[1] and #head[1] <= 40 and string.match(head[1], '^[%w_-]+$')
    and head[2] and #head[2] <= 15 and string.match(head[2], '^%d+$')
    and time and #time <= 18 and #nth <= 18
end
local function begin(log, head, epoch)
  local hold, life = redis.call('HGET', head, 'hold'), redis.call('PTTL', head)
  redis.call('DEL', log, head)
  redis.call('HSET', head, 'epoch', epoch, 'number', '0', 'id', '0-0')
  if hold then
    redis.call('HSET', head, 'hold', hold)
    redis.call('PEXPIRE', head, math.max(1, life))
  end
end
"""

#: Defines `now`, the time in milliseconds.
NOW = f"""
{WHOLE}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

#: Defines `live_on`. It lets a key live for at least `life` milliseconds, and never shortens its life. A moving session
#: may count as a member for longer than its room is used.
LIVE_ON = """
local function live_on(key, life)
  if redis.call('PTTL', key) < life then
    redis.call('PEXPIRE', key, string.format('%.0f', life))
  end
end
"""

#: Reads the head of a log, or makes one if there is no valid head. KEYS: log, head. The variable `fresh` has the epoch
#: of a new head. `HOLD_LOG` explains the field `hold`. Needs NOW.
HEAD = f"""
{_IS_HEAD}
local head = redis.call('HMGET', KEYS[2], 'epoch', 'number', 'id', 'keep_ms', 'hold')
if not is_head(head) then
  begin(KEYS[1], KEYS[2], fresh)
  head = {{fresh, '0', '0-0', head[4], head[5]}}
end
local held_from, held_until, held_ms = string.match(head[5] or '', '^(%d+) (%d+) (%d+)$')
held_from, held_until, held_ms = whole(held_from), whole(held_until), whole(held_ms)
local head_ms = math.max({HEAD_S * 1000}, whole(head[4]), held_until - now)
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', head_ms))
"""

#: Returns the epoch of a log, or an empty text if there is no log. KEYS: head.
EPOCH = f"""
{_IS_HEAD}
local head = redis.call('HMGET', KEYS[1], 'epoch', 'number', 'id')
return is_head(head) and head[1] or ''
"""

#: Defines `append`, which adds a message to the log and publishes it. KEYS: log, head. ARGV[1]: the channel. Needs NOW
#: and HEAD.
APPEND = f"""
local oldest = now - {LOG_S * 1000}
if held_until > now then
  oldest = math.min(oldest, math.max(held_from, oldest - held_ms))
end
oldest = string.format('%.0f', oldest)
local number, last, text = tonumber(head[2]), head[3], nil
local function append(message)
  number = number + 1
  text = string.format('%.0f', number)
  local id = redis.call('XADD', KEYS[1], 'MINID', '~', oldest, '*', 'n', text, 'p', last, 'm', message)
  redis.call('PUBLISH', ARGV[1], head[1] .. ' ' .. text .. ' ' .. id .. ' ' .. last .. '\\n' .. message)
  last = id
end
"""

#: Shortens the log after messages were added. KEYS: log. Needs HEAD.
TRIM = f"""
if redis.call('XLEN', KEYS[1]) > {LOG_ENTRIES} then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', {LOG_ENTRIES})
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max({LOG_S * 1000}, held_until - now)))
"""


#: Lets the log keep all later messages, because a moving session needs them. KEYS: log, head. ARGV[2]: for how many
#: milliseconds. Needs NOW and LIVE_ON.
#:
#: The head's field `hold` is for all these sessions. The field has from when and until when the log is needed, and the
#: longest time that one session needs it.
HOLD_LOG = f"""
local held_ms = tonumber(ARGV[2])
local from, till, most = string.match(redis.call('HGET', KEYS[2], 'hold') or '', '^(%d+) (%d+) (%d+)$')
local held_from, held_until = now - {LOG_S * 1000}, now + held_ms
if whole(till) > now then
  held_from, held_until = math.min(held_from, whole(from)), math.max(held_until, whole(till))
  held_ms = math.max(held_ms, whole(most))
end
redis.call('HSET', KEYS[2], 'hold', string.format('%.0f %.0f %.0f', held_from, held_until, held_ms))
live_on(KEYS[2], math.max({HEAD_S * 1000}, held_until - now))
if redis.call('EXISTS', KEYS[1]) == 1 then
  live_on(KEYS[1], held_until - now)
end
"""


def _publish(first: int, ticket: str, *, before: str = "", stored: str = "", after: str = "") -> str:
    """Returns a script that publishes messages.

    `first` is the number of the first argument with a message. The script runs the Lua code `ticket` and `stored` for
    each message.
    """
    return f"""
{before}
local fresh, field = ARGV[2], '@' .. ARGV[3]
{NOW} {HEAD} {APPEND}
local known = redis.call('HMGET', KEYS[2], field, 'senders')
local ticket = known[1] and tonumber(string.match(known[1], '^%d+')) or -1
for i = {first}, #ARGV, 2 do
  {ticket}
  if tonumber(given) > ticket then
    ticket = tonumber(given)
    append(ARGV[i + 1])
    {stored}
  end
end
if not text then
  return
end
local spoken = string.format('%.0f', ticket) .. ' ' .. text
if redis.call('HSET', KEYS[2], 'number', text, 'id', last, field, spoken) > 0 then
  local senders = whole(known[2]) + 1
  if senders > {MAX_SENDERS} then
    local all, found = redis.call('HGETALL', KEYS[2]), {{}}
    for i = 1, #all, 2 do
      if string.sub(all[i], 1, 1) == '@' then
        found[#found + 1] = {{all[i], whole(string.match(all[i + 1], '%d+$'))}}
      end
    end
    table.sort(found, function(one, other) return one[2] < other[2] end)
    senders = #found
    while senders > {MAX_SENDERS // 2} do
      redis.call('HDEL', KEYS[2], found[#found - senders + 1][1])
      senders = senders - 1
    end
  end
  redis.call('HSET', KEYS[2], 'senders', senders)
end
{after} {TRIM}
"""


#: Publishes messages, except those that it has already published. KEYS: log, head. ARGV: channel, a random epoch, the
#: sender; then the ticket and the bytes of each message, in order.
PUBLISH = _publish(4, "local given = ARGV[i]")

#: Like `PUBLISH`, but also stores messages in the room's history. KEYS: log, head, history, settings. ARGV: as for
#: `PUBLISH`, but the limits come before the first ticket. In place of the limits, there is a question mark if they are
#: in `settings`. The ticket of a message that is stored is followed by a plus sign and the bytes of its payload.
PUBLISH_KEPT = _publish(
    5,
    "local given, size = string.match(ARGV[i], '^(%d+)%+?(%d*)')",
    before="""
local limits = ARGV[4] ~= '?' and ARGV[4] or redis.call('GET', KEYS[4]) or ''
local most, keep_ms, most_bytes = string.match(limits, '^(%d+) (%d+) (%d+)')
local entries, added_bytes, kept, kept_bytes, kept_from = {}, 0, nil, nil, nil
""",
    stored="""if most and size ~= '' then
      if not kept then
        local found = redis.call('HMGET', KEYS[2], 'kept', 'kept_bytes', 'kept_from')
        kept, kept_bytes, kept_from = string.match(found[1] or '', '^%d+ %d+%-%d+$'), whole(found[2]), whole(found[3])
        if not kept then
          redis.call('DEL', KEYS[3])
          kept = '0 0-0'
        end
      end
      local here = text .. ' ' .. last
      entries[#entries + 1] = here .. ' ' .. kept .. ' ' .. size .. ' ' .. ARGV[i + 1]
      kept, added_bytes = here, added_bytes + tonumber(size)
    end""",
    after="""
if kept then
  local count = redis.call('RPUSH', KEYS[3], unpack(entries))
  if count == #entries then
    kept_bytes, kept_from = 0, now
  end
  kept_bytes = kept_bytes + added_bytes
  local function drop(number)
    local dropped = redis.call('LRANGE', KEYS[3], 0, number - 1)
    for i = 1, number do
      kept_bytes = kept_bytes - whole(string.match(dropped[i], '^%S+ %S+ %S+ %S+ (%d+)'))
    end
    redis.call('LTRIM', KEYS[3], number, -1)
    count = count - number
  end
  if count > tonumber(most) then
    drop(count - tonumber(most))
  end
  while count > 0 and kept_bytes > tonumber(most_bytes) do
    drop(1)
  end
  local oldest = now - tonumber(keep_ms)
  while count > 0 and kept_from <= oldest do
    kept_from = whole(string.match(redis.call('LINDEX', KEYS[3], 0), '^%S+ (%d+)'))
    if kept_from <= oldest then
      drop(1)
    end
  end
  redis.call('PEXPIRE', KEYS[3], keep_ms)
  redis.call('PEXPIRE', KEYS[2], string.format('%.0f', math.max(head_ms, tonumber(keep_ms))))
  redis.call('HSET', KEYS[2], 'kept', kept, 'kept_bytes', string.format('%.0f', kept_bytes), 'kept_from',
    string.format('%.0f', kept_from), 'keep_ms', keep_ms)
end
""",
)

#: Reads what a process has missed. KEYS: log, head, presence, history. ARGV: the process's position (an epoch, a number
#: and an id); the largest number of entries; a random epoch if the history is wanted, otherwise an empty text. Returns
#: the head, the entries after the position, the time in milliseconds, and the presence hash. If the position is of
#: another log, it returns all entries. If there is no log, the head has no epoch.
#:
#: If the history is wanted, the script makes a missing log. It then also returns the mark of the last message in the
#: history, and all entries of the history.
FETCH = f"""
{NOW} {_IS_HEAD}
local head = redis.call('HMGET', KEYS[2], 'epoch', 'number', 'id')
local entries = {{}}
if not is_head(head) then
  head = {{ARGV[5], '0', '0-0'}}
  if ARGV[5] ~= '' then
    begin(KEYS[1], KEYS[2], ARGV[5])
    if redis.call('PTTL', KEYS[2]) < {HEAD_S * 1000} then
      redis.call('PEXPIRE', KEYS[2], {HEAD_S * 1000})
    end
  end
elseif head[1] ~= ARGV[1] then
  entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[4])
elseif head[3] ~= ARGV[3] then
  entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[3], '+', 'COUNT', ARGV[4])
  if #entries == 0 and tonumber(head[2]) > tonumber(ARGV[2]) then  -- the clock was set back while the log was empty
    entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[4])
  end
end
local answer = {{head[1], head[2], head[3], entries, string.format('%.0f', now), redis.call('HGETALL', KEYS[3])}}
if ARGV[5] ~= '' then
  answer[7] = redis.call('HGET', KEYS[2], 'kept') or ''
  answer[8] = answer[7] ~= '' and redis.call('LRANGE', KEYS[4], 0, -1) or {{}}
end
return answer
"""

#: Reads the newest messages of the history. KEYS: log, head, history, settings. ARGV: a random epoch; the limits or a
#: question mark, as for `PUBLISH_KEPT`; how many messages. Returns the limits, the epoch, the mark of the last entry,
#: the time in milliseconds, and the entries. If there are no limits, it returns only an empty text.
HISTORY = f"""
local fresh = ARGV[1]
local limits = ARGV[2] ~= '?' and ARGV[2] or redis.call('GET', KEYS[4]) or ''
if limits == '' then
  return {{''}}
end
{NOW} {HEAD}
local keep_ms = string.match(limits, '^%d+ (%d+)')
redis.call('HSET', KEYS[2], 'keep_ms', keep_ms)
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', math.max(head_ms, tonumber(keep_ms))))
local kept = redis.call('HGET', KEYS[2], 'kept') or ''
local entries = kept ~= '' and ARGV[3] ~= '0' and redis.call('LRANGE', KEYS[3], '-' .. ARGV[3], -1) or {{}}
return {{limits, head[1], kept, string.format('%.0f', now), entries}}
"""

#: Stores the limits of histories. KEYS: settings. ARGV: the limits; after how many milliseconds Redis deletes them.
SHARE_LIMITS = "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"
