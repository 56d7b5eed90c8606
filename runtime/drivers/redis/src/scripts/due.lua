-- Part of `take` and `renew`: moves delayed messages that are due to their lists.

-- Reads the queues: {delayed key, parked key, {{step, list key}, ...}, taking key} each. Their keys follow KEYS[keys];
-- ARGV[count] is the number of steps, which follow it.
local function queues_of(keys, count)
  local steps, queues = tonumber(ARGV[count]), {}
  for base = keys, #KEYS - 1, 3 + steps do
    local lists = {}
    for nth = 1, steps do lists[nth] = { tonumber(ARGV[count + nth]), KEYS[base + 3 + nth] } end
    queues[#queues + 1] = { KEYS[base + 1], KEYS[base + 2], lists, KEYS[base + 3] }
  end
  return queues
end

-- The list of a step; where the steps were changed since it was parked, that of the step below.
local function list_of(queue, step)
  local key = queue[3][1][2]
  for _, list in ipairs(queue[3]) do
    if list[1] <= step then key = list[2] end
  end
  return key
end

-- Moves at most `most` messages, the earliest of each queue first; `now` is in milliseconds.
local function move_due(queues, now, most)
  for _, queue in ipairs(queues) do
    if most <= 0 then return end
    local ids = redis.call('ZRANGEBYSCORE', queue[1], '-inf', now, 'LIMIT', 0, most)
    most = most - #ids
    for _, id in ipairs(ids) do
      local parked, stuck = redis.call('HGET', queue[2], id), false
      if parked then
        local colon = string.find(parked, ':', 1, true)
        local step = tonumber(string.sub(parked, 1, colon - 1))
        -- First here, then away there. Where the list's key is of a wrong type it stays parked for another second: that must
        -- not keep what else is in hand.
        local pushed = redis.pcall('LPUSH', list_of(queue, step), string.sub(parked, colon + 1))
        stuck = type(pushed) == 'table' and pushed.err
      end
      if stuck then
        redis.call('ZADD', queue[1], now + 1000, id)
      else
        redis.call('ZREM', queue[1], id)
        redis.call('HDEL', queue[2], id)
      end
    end
  end
end
