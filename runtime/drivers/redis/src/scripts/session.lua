-- Part of every call of a consumer: whether it stands, and the call comes over its present line. A consumer that was reaped
-- has a negative score or none.
--
-- KEYS  1 consumers  2 the consumer's hash
-- ARGV  1 consumer  2 token of its line

local function score_of(consumer)
  local score = redis.call('ZSCORE', KEYS[1], consumer)
  return score and tonumber(score) >= 0 and tonumber(score) or nil
end

local function stands()
  return score_of(ARGV[1]) and redis.call('HGET', KEYS[2], 'token') == ARGV[2]
end

-- Shows others that a consumer lives: any change of its score does, and to the first edition the score is the end of a lease.
local function show_life(lease_ms)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local score = math.max((score_of(ARGV[1]) or 0) + 1, now + lease_ms)
  redis.call('ZADD', KEYS[1], string.format('%.0f', score), ARGV[1])
  return now, time
end
