-- Registers a new consumer.
--
-- KEYS  1 consumers  2 the consumer's hash  3 incarnation
-- ARGV  1 consumer  2 token  3 lease in milliseconds  4 its process, or ''  5 incarnation of a store that has none
-- Answer  the incarnation

-- A write that takes no memory: after it the server lets a script go on when memory is full, and a worker that can start
-- is what drains it. The first edition puts a time to live on this key.
redis.call('PERSIST', KEYS[1])
redis.call('HSET', KEYS[2], 'token', ARGV[2], 'process', ARGV[4])
show_life(tonumber(ARGV[3]))
redis.call('SET', KEYS[3], ARGV[5], 'NX')
return redis.call('GET', KEYS[3])
