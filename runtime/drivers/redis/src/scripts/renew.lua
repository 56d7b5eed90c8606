-- Keeps what a consumer holds ours: its lease, and the scores by which kombu's workers tell what was left behind. Also
-- moves what is due, so that other workers on these queues get it while this one has its hands full.
--
-- KEYS  1 consumers  2 held  3 unacked_index, then for each queue: delayed, parked, taking, a list for each step
-- ARGV  1 consumer  2 lease in milliseconds  3 time to live of both in milliseconds  4 most delayed messages to move
--       5 cursor of the scores to refresh  6 about how many of them
--       7 number of steps, and then the steps
-- Answer  nil when the lease is lost; else { cursor of the next refreshing, now in milliseconds,
--         consumer, end of its lease, ... of some whose lease ran out }

-- A write that takes no memory: after it the server lets a script go on when memory is full. Who holds something must be
-- able to keep it.
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not lease or tonumber(lease) < 0 then return false end

local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
redis.call('ZADD', KEYS[1], math.floor(now) + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])

local score = time[1] .. '.' .. string.format('%06d', time[2])
local page = redis.call('SSCAN', KEYS[2], ARGV[5], 'COUNT', ARGV[6])
local held, scores = page[2], {}
for i = 1, #held do
  local n = #scores
  scores[n + 1], scores[n + 2] = score, held[i]
  if n >= 998 or i == #held then
    -- XX: what is gone stays gone.
    redis.call('ZADD', KEYS[3], 'XX', unpack(scores))
    scores = {}
  end
end

move_due(queues_of(3, 7), now, tonumber(ARGV[4]))
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, 64)
return { page[1], math.floor(now), unpack(dead) }
