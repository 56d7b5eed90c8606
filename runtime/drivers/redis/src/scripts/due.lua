-- Part of `take` and `renew`: moves delayed messages that are due to their lists.

-- Reads the queues, whose keys follow KEYS[keys]: `fixed` of them, then a list for each step. ARGV[count] is the number of
-- steps, which follow it.
local function queues_of(keys, fixed, count)
  local steps, queues = tonumber(ARGV[count]), {}
  for base = keys, #KEYS - 1, fixed + steps do
    local lists = {}
    for nth = 1, steps do lists[nth] = { tonumber(ARGV[count + nth]), KEYS[base + fixed + nth] } end
    queues[#queues + 1] = { delayed = KEYS[base + 1], parked = KEYS[base + 2], taking = KEYS[base + 3], lists = lists }
  end
  return queues
end

-- The list of a step; where the steps were changed since it was parked, that of the step below.
local function list_of(queue, step)
  local key = queue.lists[1][2]
  for _, list in ipairs(queue.lists) do
    if list[1] <= step then key = list[2] end
  end
  return key
end

-- Moves at most `most` messages, the earliest of each queue first; `now` is in milliseconds. A key of a wrong type must not
-- keep what else is in hand: such a message stays parked for another second.
local function move_due(queues, now, most)
  for _, queue in ipairs(queues) do
    if most <= 0 then return end
    local ids = redis.pcall('ZRANGEBYSCORE', queue.delayed, '-inf', now, 'LIMIT', 0, most)
    if ids.err then ids = {} end
    most = most - #ids
    -- Who has no right to this is refused before anything is moved, and would else move it again and again.
    if #ids > 0 then redis.call('ZREM', queue.delayed, '') end
    for _, id in ipairs(ids) do
      local parked, stuck = redis.pcall('HGET', queue.parked, id), false
      if type(parked) == 'string' then
        local colon = string.find(parked, ':', 1, true)
        local step = tonumber(string.sub(parked, 1, colon - 1))
        -- First here, then away there.
        stuck = type(redis.pcall('LPUSH', list_of(queue, step), string.sub(parked, colon + 1))) == 'table'
      else
        stuck = type(parked) == 'table'
      end
      if stuck then
        redis.call('ZADD', queue.delayed, now + 1000, id)
      else
        redis.call('ZREM', queue.delayed, id)
        redis.pcall('HDEL', queue.parked, id)
      end
    end
  end
end
