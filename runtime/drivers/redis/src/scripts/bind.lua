-- Binds queues as kombu does when it declares them.
--
-- KEYS  for each queue its table of bindings and that of the permanent ones
-- ARGV  for each queue its binding

-- A write that takes no memory: after it the server lets a script go on when memory is full.
redis.call('SREM', KEYS[1], '')
for i = 1, #ARGV do
  redis.call('SADD', KEYS[2 * i - 1], ARGV[i])
  redis.call('SADD', KEYS[2 * i], ARGV[i])
end
