-- Counts what is held by routing key, looking at these. Envelopes stay where they are.
--
-- KEYS  1 unacked
-- ARGV  tags
-- Answer  { how many of the tags were looked at, routing key as JSON, count, ... }

-- Envelopes are copied to be looked at: a few milliseconds of the server's time.
local BYTES_MAX = 4 * 1024 * 1024

local counts, bytes, seen = {}, 0, 0
for _, tag in ipairs(ARGV) do
  local entry = redis.call('HGET', KEYS[1], tag)
  seen = seen + 1
  if entry then
    -- The routing key is the last string; names are at most some hundred bytes.
    local key = string.match(string.sub(entry, -1600), '.*(".-")%s*%]%s*$')
    if key then counts[key] = (counts[key] or 0) + 1 end
    bytes = bytes + #entry
    if bytes > BYTES_MAX then break end
  end
end
local answer = { seen }
for key, count in pairs(counts) do
  answer[#answer + 1] = key
  answer[#answer + 1] = count
end
return answer
