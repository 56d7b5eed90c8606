-- Registers a consumer and binds its queues as kombu does when it declares them.
--
-- KEYS  1 consumers, then for each queue its table of bindings and that of the permanent ones
-- ARGV  1 consumer  2 lease in milliseconds  3 time to live of `consumers` in milliseconds, then for each queue its binding
-- Answer  { now in milliseconds, consumer, end of its lease, ... } of some whose lease ran out

-- A write that takes no memory: after it the server lets a script go on when memory is full, and a worker that can start
-- is what drains it.
redis.call('ZREM', KEYS[1], ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
for i = 4, #ARGV do
  redis.call('SADD', KEYS[2 * i - 6], ARGV[i])
  redis.call('SADD', KEYS[2 * i - 5], ARGV[i])
end
return { now, unpack(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, 64)) }
