-- Reads a page of what was taken longer ago than kombu's visibility timeout, the newest first, as kombu does.
--
-- KEYS  1 unacked  2 unacked_index
-- ARGV  1 visibility timeout in seconds  2 most messages  3 most bytes
-- Answer  { tag, score, entry, ... }

local time = redis.call('TIME')
local horizon = time[1] + time[2] / 1000000 - ARGV[1]
local answer, bytes = {}, tonumber(ARGV[3])
local old = redis.call('ZREVRANGEBYSCORE', KEYS[2], horizon, '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for i = 1, #old, 2 do
  if bytes <= 0 then break end
  local entry = redis.call('HGET', KEYS[1], old[i])
  if entry then
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3] = old[i], old[i + 1], entry
    bytes = bytes - #entry
  else
    -- An index without an entry leads nowhere.
    redis.call('ZREM', KEYS[2], old[i])
  end
end
return answer
