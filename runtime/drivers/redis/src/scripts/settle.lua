-- Settles a batch. What is not held any more (a peer restored it) is left as it is.
--
-- KEYS  1 consumers  2 held  3 unacked  4 unacked_index  5 dead  6 letters  7 dead counts
--       then the lists, delayed and parked keys that the acts name by their place here
-- ARGV  1 consumer  2 number of acks, and then their tags
--       then acts: 'back', tag, list, envelope          to the end of its list
--                  'head', tag, list, envelope          to its head; those of a batch keep their order
--                  'park', tag, delayed, parked, id, milliseconds to wait, step:envelope
--                  'dead', tag, queue, random part of its id, letter
-- Answer  nil when the lease is lost; else 1 or 0 for each, the acks first.

local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not lease or tonumber(lease) < 0 then return false end

local answers, acks, acked = {}, tonumber(ARGV[2]), {}
for i = 1, acks do
  local had = redis.call('HDEL', KEYS[3], ARGV[2 + i])
  answers[i] = had
  if had == 1 then
    acked[#acked + 1] = ARGV[2 + i]
  else
    -- What is not ours may be another's by now, with the same tag: its score must stay.
    redis.call('SREM', KEYS[2], ARGV[2 + i])
  end
end
for from = 1, #acked, 900 do
  local to = math.min(from + 899, #acked)
  redis.call('SREM', KEYS[2], unpack(acked, from, to))
  redis.call('ZREM', KEYS[4], unpack(acked, from, to))
end

local at = acks + 3
if at > #ARGV then return answers end

local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

-- A write that takes no memory: after it the server lets a script go on when memory is full. Giving back must be possible.
redis.call('SREM', KEYS[2], '')

local function is_held(tag)
  local had = redis.call('HEXISTS', KEYS[3], tag)
  answers[#answers + 1] = had
  if had == 0 then redis.call('SREM', KEYS[2], tag) end
  return had == 1
end

-- Comes after the message is where it should be: a key of a wrong type ends the script, and nothing may be lost by that.
local function forget(tag)
  redis.call('HDEL', KEYS[3], tag)
  redis.call('SREM', KEYS[2], tag)
  redis.call('ZREM', KEYS[4], tag)
end

local heads = {}
while at <= #ARGV do
  local act, tag = ARGV[at], ARGV[at + 1]
  if act == 'back' then
    if is_held(tag) then
      redis.call('LPUSH', KEYS[tonumber(ARGV[at + 2])], ARGV[at + 3])
      forget(tag)
    end
    at = at + 4
  elseif act == 'head' then
    if is_held(tag) then heads[#heads + 1] = at end
    at = at + 4
  elseif act == 'park' then
    if is_held(tag) then
      redis.call('HSET', KEYS[tonumber(ARGV[at + 3])], ARGV[at + 4], ARGV[at + 6])
      redis.call('ZADD', KEYS[tonumber(ARGV[at + 2])], now + ARGV[at + 5], ARGV[at + 4])
      forget(tag)
    end
    at = at + 7
  else
    if is_held(tag) then
      bury({ KEYS[5], KEYS[6], KEYS[7] }, time, ARGV[at + 3], ARGV[at + 2], ARGV[at + 4])
      forget(tag)
    end
    at = at + 5
  end
end
-- The last one first, so that the first one is the next to be taken.
for i = #heads, 1, -1 do
  local head = heads[i]
  redis.call('RPUSH', KEYS[tonumber(ARGV[head + 2])], ARGV[head + 3])
  forget(ARGV[head + 1])
end
return answers
