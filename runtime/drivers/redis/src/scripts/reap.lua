-- Marks dead consumers as reaped and reads a page of what they held. Whoever was dead and is not knows from now on that it
-- is. Those that were read before and not restored (their reader died) are read again.
--
-- KEYS  1 consumers  2 unacked  3 unacked_index
-- ARGV  1 what keys of `held` begin with  2 what keys of consumers' hashes begin with  3 most messages  4 most bytes
--       5 milliseconds for which numbers and answers of the dead are kept
--       then each consumer that is dead, and its score as it was seen
-- Answer  { number of reaped consumers that are left, { consumer, tag, score, entry, starts, ... }, ... }
--         for each the newest message first; starts are '' where none were written

-- A write that takes no memory: after it the server lets a script go on when memory is full.
redis.call('ZREM', KEYS[1], '')
for i = 6, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  -- Any change since then is a sign of life. The score stays known, as a negative number.
  if score == ARGV[i + 1] and tonumber(score) >= 0 then
    redis.call('ZADD', KEYS[1], string.format('%.0f', -1 - tonumber(score)), ARGV[i])
  end
end
local most, bytes, answer = tonumber(ARGV[3]), tonumber(ARGV[4]), { 0 }
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(0', 'WITHSCORES', 'LIMIT', 0, most)
for i = 1, #dead, 2 do
  if most <= 0 or bytes <= 0 then break end
  local consumer, lease = dead[i], -1 - tonumber(dead[i + 1])
  local key, hash, found, group = ARGV[1] .. consumer, ARGV[2] .. consumer, {}, { consumer }
  for _, tag in ipairs(redis.call('SRANDMEMBER', key, most)) do
    if bytes <= 0 then break end
    most = most - 1
    local score = redis.call('ZSCORE', KEYS[3], tag) or ''
    -- A tag of the first edition is the publisher's: another may have taken it again since the lease ended.
    local is_own = string.sub(tag, 1, #consumer + 1) == consumer .. ':'
    local is_its = is_own or score == '' or tonumber(score) * 1000 <= lease + 1
    local entry = is_its and redis.call('HGET', KEYS[2], tag)
    if entry then
      local starts = redis.call('HGET', hash, 's:' .. tag) or ''
      local number = is_own and tonumber(string.sub(tag, #consumer + 2)) or 0
      found[#found + 1] = { tag, score, entry, starts, tonumber(score) or 0, number }
      bytes = bytes - #entry
    else
      -- A peer restored or acked it.
      redis.call('SREM', key, tag)
    end
  end
  -- Those of one take have one score; their numbers say the order.
  table.sort(found, function(one, other)
    if one[5] ~= other[5] then return one[5] > other[5] end
    return one[6] > other[6]
  end)
  for _, message in ipairs(found) do
    local n = #group
    group[n + 1], group[n + 2], group[n + 3], group[n + 4] = unpack(message, 1, 4)
  end
  if #group > 1 then
    answer[#answer + 1] = group
  elseif redis.call('SCARD', key) == 0 then
    redis.call('ZREM', KEYS[1], consumer)
    redis.call('PEXPIRE', hash, ARGV[5])
  end
end
answer[1] = redis.call('ZCOUNT', KEYS[1], '-inf', '(0')
return answer
