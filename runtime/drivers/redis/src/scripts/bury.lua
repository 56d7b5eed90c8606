-- Part of `commit` and `restore`: keeps a dead letter, or returns why it can't be kept.
--
-- Expects `dead`: { dead, letters, counts }, and `time` as the server gave it. Ids are in the order of time: its
-- microseconds, a number within this script, and the caller's random part.

local buried = 0
local function bury(dead, time, random, queue, letter)
  local id = string.format('%d%06d-%04d-%s', time[1], time[2], buried, random)
  buried = buried + 1
  local kept = redis.pcall('HSET', dead[2], id, letter)
  if type(kept) == 'table' then return kept end
  local listed = redis.pcall('ZADD', dead[1], 0, id)
  if type(listed) == 'table' then
    redis.pcall('HDEL', dead[2], id)
    return listed
  end
  -- The count is for people.
  redis.pcall('HINCRBY', dead[3], queue, 1)
end
