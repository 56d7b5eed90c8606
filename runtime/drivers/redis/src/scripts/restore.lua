-- Gives messages back to the consuming end of their lists, or to the dead letters; each only if nobody did anything with it
-- since it was read: every taking gives a tag a new score.
--
-- KEYS  1 consumers  2 unacked  3 unacked_index  4 dead  5 letters  6 dead counts, then the keys that are named by place
-- ARGV  acts: 'head', tag, score, held or '0', number of lists, lists ..., envelope
--             'dead', tag, score, held or '0', queue, random part of its id, letter
--       with `held` the place of the key that has the tag, among KEYS
-- Answer  how many were restored

-- A write that takes no memory: after it the server lets a script go on when memory is full.
redis.call('ZREM', KEYS[1], '')
-- Who has no right to these is refused before anything is put back, and would else put it back again and again.
redis.call('HDEL', KEYS[2], '')
redis.call('ZREM', KEYS[3], '')
local time = redis.call('TIME')
local restored, at = 0, 1
while at <= #ARGV do
  local act, tag, score, held = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local same = (redis.call('ZSCORE', KEYS[3], tag) or '') == score and redis.call('HEXISTS', KEYS[2], tag) == 1
  if act == 'head' then
    local lists = tonumber(ARGV[at + 4])
    for i = 1, lists do
      -- A list of a wrong type must not keep the others: its message stays where it is.
      if same then same = type(redis.pcall('RPUSH', KEYS[tonumber(ARGV[at + 4 + i])], ARGV[at + 5 + lists])) == 'number' end
    end
    at = at + 6 + lists
  else
    if same then same = not bury({ KEYS[4], KEYS[5], KEYS[6] }, time, ARGV[at + 5], ARGV[at + 4], ARGV[at + 6]) end
    at = at + 7
  end
  if same then
    redis.call('HDEL', KEYS[2], tag)
    redis.call('ZREM', KEYS[3], tag)
    restored = restored + 1
  end
  if held > 0 and redis.call('HEXISTS', KEYS[2], tag) == 0 then redis.pcall('SREM', KEYS[held], tag) end
end
return restored
