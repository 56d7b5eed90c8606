-- Ends a consumer that has given everything back.
--
-- KEYS  1 consumers  2 held, then for each queue: taking, the list that it was taken from
-- ARGV  1 consumer

if redis.call('SCARD', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
elseif redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  -- Something that it did not know of: as after a crash, and at once.
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[1], -1 - math.floor(time[1] * 1000 + time[2] / 1000), ARGV[1])
end
-- Peers that are no rwork do not know of what a blocking move took and no take has seen. The newest goes back first.
for nth = 3, #KEYS, 2 do
  while redis.call('LMOVE', KEYS[nth], KEYS[nth + 1], 'LEFT', 'RIGHT') do end
end
