-- One take: what is due becomes ready, then messages are popped and registered as held by this consumer. One atomic step,
-- so that no crash can lose a message between its list and `unacked`.
--
-- Each message gets a tag of its own, `consumer:number`, which never means another taking. To kombu a tag is only a name for
-- the way back.
--
-- KEYS  1 consumers  2 the consumer's hash  3 held  4 unacked  5 unacked_index
--       then for each queue, the first to be served first: delayed, parked, a list for each step
-- ARGV  1 consumer  2 token  3 the last number that is known to be given  4 most messages  5 most bytes
--       6 most delayed messages to move  7 '1': queues share the room, '0': the first is emptied first
--       8 number of steps, and then the steps
--       then for each queue what follows the envelope in `unacked`: , "", "celery"]
-- Answer  nil when the consumer does not stand; else
--         { number before the first, { for each queue what it has left: milliseconds until something is due, -1 nothing,
--           -2 a key of a wrong type }, { place of the queue, step, envelope, ... }, ... }
--         nothing is said of what is left where the room was too small

if not stands() then return false end
-- A key of a wrong type must stop us before anything is popped.
redis.call('SCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])
-- A write that takes no memory: after it the server lets a script go on when memory is full. Draining must be possible.
redis.call('PERSIST', KEYS[3])

local queues = queues_of(5, 2, 8)
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local most, bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local steps = tonumber(ARGV[8])
move_due(queues, now, tonumber(ARGV[6]))

local groups, taken, broken = {}, 0, {}

-- Makes each write that follows a pop, of an entry that is nobody's, so that a user without the right to one of them is
-- refused before anything is popped. Returns the refusal.
local function rehearse()
  local function refusal_of(writes)
    for _, write in ipairs(writes) do
      local done = redis.pcall(unpack(write))
      if type(done) == 'table' and done.err then return done end
    end
  end
  local remove = { { 'SREM', KEYS[3], '' }, { 'HDEL', KEYS[4], '' }, { 'ZREM', KEYS[5], '' } }
  local refused = refusal_of(remove) or refusal_of({ { 'HSET', KEYS[2], 'token', ARGV[2] } })
  if refused then return refused end
  refused = refusal_of({ { 'SADD', KEYS[3], '' }, { 'HSET', KEYS[4], '', '' }, { 'ZADD', KEYS[5], 0, '' } })
  refusal_of(remove)
  return refused
end

-- Pops up to `want` messages. At first few and then more, so that large ones are noticed before they are too many.
local function pop(nth, step, list, want)
  local group, got, chunk = { nth - 1, step }, 0, 1
  while got < want and bytes > 0 do
    local count = math.min(want - got, chunk)
    -- After the first pop no error may end the script.
    local popped = redis.pcall('RPOP', list, count)
    if not popped then break end
    if popped.err then broken[nth] = true break end
    local size = 0
    for i = 1, #popped do
      size = size + #popped[i]
      group[2 + got + i] = popped[i]
    end
    got, bytes = got + #popped, bytes - size
    if #popped < count then break end
    chunk = math.max(1, math.min(chunk * 2, math.floor(bytes * count / (size + 1))))
  end
  if got > 0 then
    groups[#groups + 1] = group
    taken = taken + got
  end
  return got
end

local function has_any(step)
  for _, queue in ipairs(queues) do
    local length = redis.pcall('LLEN', queue.lists[step][2])
    if type(length) == 'number' and length > 0 then return true end
  end
  return false
end

local rehearsed = false
for step = 1, steps do
  -- The queues that may have more in this step.
  local open = {}
  for nth = 1, #queues do open[nth] = nth end
  if not rehearsed and has_any(step) then
    rehearsed = true
    local refused = rehearse()
    if refused then return refused end
  end
  while #open > 0 and taken < most and bytes > 0 do
    local share = most
    if ARGV[7] == '1' then share = math.max(1, math.floor((most - taken) / #open)) end
    local still = {}
    for _, nth in ipairs(open) do
      local want = math.min(share, most - taken)
      local list = queues[nth].lists[step]
      if want > 0 and pop(nth, list[1], list[2], want) == want then still[#still + 1] = nth end
    end
    open = still
  end
end

local left = {}
if taken < most and bytes > 0 then
  for nth, queue in ipairs(queues) do
    local first = redis.pcall('ZRANGE', queue.delayed, 0, 0, 'WITHSCORES')
    if broken[nth] or first.err then
      left[nth] = -2
    elseif first[2] then
      -- Rounded up: woken a moment too early it would not be due yet.
      left[nth] = math.max(1, math.ceil(tonumber(first[2]) - now))
    else
      left[nth] = -1
    end
  end
end
if taken == 0 then return { 0, left } end

-- A store that lost data may have forgotten numbers that the consumer has seen.
local before = math.max(tonumber(redis.call('HGET', KEYS[2], 'taken') or 0), tonumber(ARGV[3]))
redis.call('HSET', KEYS[2], 'taken', string.format('%.0f', before + taken))

-- A microsecond between any two keeps their order, for whoever restores them.
local micros = math.min(tonumber(time[2]), 999999 - taken)
local second = time[1] .. '.'
local tags, entries, index, nth = {}, {}, {}, 0
-- A sorted set of a few short elements is kept as a list and slow to add to; a long element makes it a proper one.
local long = string.rep('rwork', 20)
if taken > 8 then index = { 0, long } end

local function register()
  redis.call('HSET', KEYS[4], unpack(entries))
  redis.call('ZADD', KEYS[5], unpack(index))
  redis.call('SADD', KEYS[3], unpack(tags))
  tags, entries, index = {}, {}, {}
end
for _, group in ipairs(groups) do
  local back = ARGV[9 + steps + group[1]]
  for i = 3, #group do
    nth = nth + 1
    local tag, n, m = ARGV[1] .. ':' .. string.format('%.0f', before + nth), #entries, #index
    tags[#tags + 1] = tag
    entries[n + 1], entries[n + 2] = tag, '[' .. group[i] .. back
    local micro = micros + nth
    if micro < 100000 then micro = string.format('%06d', micro) end
    index[m + 1], index[m + 2] = second .. micro, tag
    if n >= 1000 then register() end
  end
end
if #tags > 0 then register() end
if taken > 8 then redis.call('ZREM', KEYS[5], long) end
return { before, left, unpack(groups) }
