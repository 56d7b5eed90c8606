-- Puts a batch into its lists, all of it or nothing.
--
-- KEYS  first the lists, then pairs of delayed and parked: the acts name them by their place
-- ARGV  1 number of lists, then acts: 'now', list, number of envelopes, envelopes ...
--                                     'later', delayed, parked, id, milliseconds to wait, step:envelope

-- A key of a wrong type must stop us before anything is written.
local lists = tonumber(ARGV[1])
for nth = 1, lists do redis.call('LLEN', KEYS[nth]) end
for nth = lists + 1, #KEYS, 2 do
  redis.call('ZCARD', KEYS[nth])
  redis.call('HLEN', KEYS[nth + 1])
end

local time, at = nil, 2
while at <= #ARGV do
  if ARGV[at] == 'now' then
    local key, count = KEYS[tonumber(ARGV[at + 1])], tonumber(ARGV[at + 2])
    for from = at + 3, at + 2 + count, 900 do
      redis.call('LPUSH', key, unpack(ARGV, from, math.min(from + 899, at + 2 + count)))
    end
    at = at + 3 + count
  else
    time = time or redis.call('TIME')
    local due = time[1] * 1000 + time[2] / 1000 + ARGV[at + 4]
    redis.call('HSET', KEYS[tonumber(ARGV[at + 2])], ARGV[at + 3], ARGV[at + 5])
    redis.call('ZADD', KEYS[tonumber(ARGV[at + 1])], due, ARGV[at + 3])
    at = at + 6
  end
end
