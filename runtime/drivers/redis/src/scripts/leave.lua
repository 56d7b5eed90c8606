-- Ends a consumer that has given everything back.
--
-- KEYS  1 consumers  2 the consumer's hash  3 held
-- ARGV  1 consumer  2 token

if not stands() then return end
if redis.call('SCARD', KEYS[3]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[2])
else
  -- Something that it did not know of: as after a crash, and at once.
  local score = score_of(ARGV[1])
  redis.call('ZREM', KEYS[1], '')
  redis.call('ZADD', KEYS[1], string.format('%.0f', -1 - score), ARGV[1])
end
