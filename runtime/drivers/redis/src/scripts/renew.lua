-- Shows that a consumer lives, and refreshes the scores by which kombu's workers tell what was left behind. Also moves what
-- is due, so that other workers on these queues get it while this one has its hands full.
--
-- KEYS  1 consumers  2 the consumer's hash  3 held  4 unacked_index  5 incarnation
--       then for some queues: delayed, parked, taking, a list for each step
-- ARGV  1 consumer  2 token  3 incarnation  4 lease in milliseconds  5 most delayed messages to move
--       6 cursor of the scores to refresh  7 about how many of them  8 what keys of consumers' hashes begin with
--       9 number of steps, and then the steps
-- Answer  nil when the consumer does not stand; else { cursor of the next refreshing, number of tags held,
--         consumer, score, process, ... of at most 64 others that look old, those that were reaped first }

if not stands() or redis.call('GET', KEYS[5]) ~= ARGV[3] then return false end
-- A write that takes no memory: after it the server lets a script go on when memory is full.
redis.call('PERSIST', KEYS[1])
local lease = tonumber(ARGV[4])
local now, time = show_life(lease)

local score = time[1] .. '.' .. string.format('%06d', time[2])
local page = redis.call('SSCAN', KEYS[3], ARGV[6], 'COUNT', ARGV[7])
local held, scores = page[2], {}
for i = 1, #held do
  local n = #scores
  scores[n + 1], scores[n + 2] = score, held[i]
  if n >= 998 or i == #held then
    -- XX: what is gone stays gone.
    redis.call('ZADD', KEYS[4], 'XX', unpack(scores))
    scores = {}
  end
end

local queues = queues_of(5, 3, 9)
for _, queue in ipairs(queues) do
  -- Left by a blocking move of the first edition. The newest goes back first.
  while type(redis.pcall('LMOVE', queue.taking, queue.lists[1][2], 'LEFT', 'RIGHT')) == 'string' do end
end
move_due(queues, now, tonumber(ARGV[5]))

local answer = { page[1], redis.call('SCARD', KEYS[3]) }
-- Who renewed within the last fifth of a lease is not looked at.
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now + lease * 4 / 5, 'WITHSCORES', 'LIMIT', 0, 64)
for i = 1, #old, 2 do
  local n = #answer
  answer[n + 1], answer[n + 2] = old[i], old[i + 1]
  answer[n + 3] = redis.call('HGET', ARGV[8] .. old[i], 'process') or ''
end
return answer
