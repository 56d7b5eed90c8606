-- Looks whether there is something to take. What it reads the server watches for a consumer that asked for it, and tells when
-- it changes.
--
-- KEYS  lists, then delayed keys
-- ARGV  1 number of lists
-- Answer  0: something can be taken now; else milliseconds until something is due, or -1

local lists, wait = tonumber(ARGV[1]), -1
if lists > 0 and redis.call('EXISTS', unpack(KEYS, 1, lists)) > 0 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
for nth = lists + 1, #KEYS do
  local first = redis.call('ZRANGE', KEYS[nth], 0, 0, 'WITHSCORES')
  if first[2] then
    -- Rounded up: woken a moment too early it would not be due yet.
    local left = math.max(1, math.ceil(tonumber(first[2]) - now))
    if wait < 0 or left < wait then wait = left end
  end
end
return wait
