-- Ends the leases of dead consumers and reads a page of what they held. Whoever was dead and is not knows from now on that
-- it is. Those that were read before and not restored (their reader died) are read again. A lease that ran out is not
-- enough: the server's clock may have been put forward. Whoever calls knows that it was not.
--
-- KEYS  1 consumers  2 unacked  3 unacked_index
-- ARGV  1 what keys of `held` begin with  2 most messages  3 most bytes, then each consumer that is dead, and its lease as it
--       was seen; an empty one: dead whatever that says
-- Answer  { number of dead consumers that are left, { consumer, tag, score, entry, tag, score, entry, ... }, ... }
--         for each the newest message first

-- A write that takes no memory: after it the server lets a script go on when memory is full.
redis.call('ZREM', KEYS[1], '')
-- The end of its lease stays known, as a negative number.
local function fence(consumer, lease)
  if lease >= 0 then redis.call('ZADD', KEYS[1], -1 - lease, consumer) end
end
for i = 4, #ARGV, 2 do
  local lease = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if lease and (ARGV[i + 1] == '' or ARGV[i + 1] == lease) then fence(ARGV[i], tonumber(lease)) end
end
local most, bytes, answer = tonumber(ARGV[2]), tonumber(ARGV[3]), { 0 }
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(0', 'WITHSCORES', 'LIMIT', 0, most)
for i = 1, #dead, 2 do
  if most <= 0 or bytes <= 0 then break end
  local consumer, lease = dead[i], -1 - tonumber(dead[i + 1])
  local key, found, group = ARGV[1] .. consumer, {}, { consumer }
  for _, tag in ipairs(redis.call('SRANDMEMBER', key, most)) do
    if bytes <= 0 then break end
    most = most - 1
    local score = redis.call('ZSCORE', KEYS[3], tag) or ''
    local is_its = score == '' or tonumber(score) * 1000 <= lease + 1
    local entry = is_its and redis.call('HGET', KEYS[2], tag)
    if entry then
      found[#found + 1] = { tag, score, entry, tonumber(score) or 0 }
      bytes = bytes - #entry
    else
      -- A peer restored or acked it, and another may have taken it since its lease ended.
      redis.call('SREM', key, tag)
    end
  end
  table.sort(found, function(one, other) return one[4] > other[4] end)
  for _, message in ipairs(found) do
    local n = #group
    group[n + 1], group[n + 2], group[n + 3] = unpack(message, 1, 3)
  end
  if #group > 1 then
    answer[#answer + 1] = group
  elseif redis.call('SCARD', key) == 0 then
    redis.call('ZREM', KEYS[1], consumer)
  end
end
answer[1] = redis.call('ZCOUNT', KEYS[1], '-inf', '(0')
return answer
