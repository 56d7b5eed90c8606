-- Deletes what a queue has and nobody holds.
--
-- KEYS  1 delayed  2 parked, then its lists
-- Answer  how many messages that were

local count = redis.call('ZCARD', KEYS[1])
for i = 3, #KEYS do
  count = count + redis.call('LLEN', KEYS[i])
end
redis.call('UNLINK', unpack(KEYS))
return count
