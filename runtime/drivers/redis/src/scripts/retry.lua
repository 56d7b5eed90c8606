-- Takes dead letters away, and puts those that are to be tried again into their lists.
--
-- KEYS  1 dead  2 letters  3 dead counts, then the lists that are named by place
-- ARGV  for each: id, queue, list or '0', envelope
-- Answer  how many were still there

-- A write that takes no memory: after it the server lets a script go on when memory is full.
redis.call('ZREM', KEYS[1], '')
local count = 0
for at = 1, #ARGV, 4 do
  if redis.call('ZSCORE', KEYS[1], ARGV[at]) then
    local list = tonumber(ARGV[at + 2])
    if list > 0 then redis.call('LPUSH', KEYS[list], ARGV[at + 3]) end
    redis.call('ZREM', KEYS[1], ARGV[at])
    redis.call('HDEL', KEYS[2], ARGV[at])
    if redis.call('HINCRBY', KEYS[3], ARGV[at + 1], -1) <= 0 then redis.call('HDEL', KEYS[3], ARGV[at + 1]) end
    count = count + 1
  end
end
return count
