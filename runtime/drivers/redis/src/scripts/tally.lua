-- Counts a page of what is held, by routing key. Envelopes stay where they are.
--
-- KEYS  1 unacked
-- ARGV  1 cursor  2 about how many to look at
-- Answer  { next cursor, routing key as JSON, count, ... }

local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local counts = {}
for i = 2, #page[2], 2 do
  -- The routing key is the last string; names are at most some hundred bytes.
  local key = string.match(string.sub(page[2][i], -1600), '.*(".-")%s*%]%s*$')
  if key then counts[key] = (counts[key] or 0) + 1 end
end
local answer = { page[1] }
for key, count in pairs(counts) do
  answer[#answer + 1] = key
  answer[#answer + 1] = count
end
return answer
