-- One take: what is due becomes ready, then messages are popped and registered as held by this consumer. One atomic step,
-- so that no crash can lose a message between its list and `unacked`.
--
-- KEYS  1 consumers  2 held  3 unacked  4 unacked_index
--       then for each queue, the first to be served first: delayed, parked, taking, a list for each step
-- ARGV  1 consumer  2 how many messages it has taken before  3 most messages  4 most bytes
--       5 most delayed messages to move  6 '1': queues share the room, '0': the first is emptied first
--       7 time to live of `held` in milliseconds  8 lease in milliseconds  9 number of steps, and then the steps
--       then for each queue what follows the envelope in `unacked`: , "", "celery"]
-- Answer  nil when the lease is lost; else { place of the queue, step, tag, envelope, tag, envelope, ... }, ...

local queues = queues_of(4, 9)
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not lease or tonumber(lease) < 0 then
  -- What a blocking move took for us goes back to the head of its list, the newest first. A write that takes no memory
  -- precedes it: after that the server lets a script go on when memory is full.
  redis.call('ZREM', KEYS[1], '')
  for _, queue in ipairs(queues) do
    while redis.call('LMOVE', queue[4], queue[3][1][2], 'LEFT', 'RIGHT') do end
  end
  return false
end
-- A key of a wrong type must stop us before anything is popped.
redis.call('HLEN', KEYS[3])
redis.call('ZCARD', KEYS[4])

local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local most, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local steps = tonumber(ARGV[9])

-- A write that takes no memory: after it the server lets a script go on when memory is full. Draining must be possible.
redis.call('PEXPIRE', KEYS[2], ARGV[7])
-- A lease that ran out, and nobody minded. No message may be newer than the lease it is held by: by that they are told from
-- those that a peer restored and another took.
if tonumber(lease) < now then redis.call('ZADD', KEYS[1], math.floor(now) + ARGV[8], ARGV[1]) end
move_due(queues, now, tonumber(ARGV[5]))

local groups, taken, failure = {}, 0, nil

-- Pops up to `want` messages. At first few and then more, so that large ones are noticed before they are too many.
local function pop(nth, step, list, want, chunk)
  local group, got = { nth - 1, step }, 0
  while got < want and bytes > 0 do
    local count = math.min(want - got, chunk)
    -- After the first pop no error may end the script.
    local popped = redis.pcall('RPOP', list, count)
    if not popped then break end
    if popped.err then failure = popped break end
    local size = 0
    for i = 1, #popped do
      size = size + #popped[i]
      -- Room for its tag, and itself.
      group[1 + 2 * (got + i)] = false
      group[2 + 2 * (got + i)] = popped[i]
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

-- First what a blocking move took out of the first list, for us or for somebody who died of it.
for nth, queue in ipairs(queues) do
  -- One is all there is but for accidents: a few at once spare a second look.
  if taken < most and bytes > 0 then pop(nth, queue[3][1][1], queue[4], most - taken, 4) end
end
-- Mostly a worker that waited gets one message: no list needs to be tried then.
local lists = {}
for _, queue in ipairs(queues) do
  for _, list in ipairs(queue[3]) do lists[#lists + 1] = list[2] end
end
local last = redis.call('EXISTS', unpack(lists)) > 0 and steps or 0
for step = 1, last do
  -- The queues that may have more in this step.
  local open = {}
  for nth = 1, #queues do open[nth] = nth end
  while #open > 0 and taken < most and bytes > 0 do
    local share = most
    if ARGV[6] == '1' then share = math.max(1, math.floor((most - taken) / #open)) end
    local still = {}
    for _, nth in ipairs(open) do
      local want = math.min(share, most - taken)
      local list = queues[nth][3][step]
      if want > 0 and pop(nth, list[1], list[2], want, 1) == want then still[#still + 1] = nth end
    end
    open = still
  end
end

if taken == 0 then
  if failure then return failure end
  return {}
end

-- kombu puts the tag last: a UUID, then `"}}`. Other producers need not.
local function tag_of(envelope)
  if string.sub(envelope, -56, -40) == '"delivery_tag": "' then return string.sub(envelope, -39, -4) end
  local _, key = string.find(envelope, '"delivery_tag"', 1, true)
  -- One with an escape in it is not worth unescaping.
  local tag = key and string.match(envelope, '^%s*:%s*"([^"\\]+)"', key + 1)
  if tag and #tag <= 255 then return tag end
  return 'rwork'
end

local tags = {}
for _, group in ipairs(groups) do
  for i = 4, #group, 2 do tags[#tags + 1] = tag_of(group[i]) end
end

-- A tag that is in use, or twice among these, or none: one of our own. To kombu a tag is only a name for the way back.
local seen = { rwork = true }
for from = 1, #tags, 900 do
  local to = math.min(from + 899, #tags)
  local found = redis.call('HMGET', KEYS[3], unpack(tags, from, to))
  for i = from, to do
    local tag = tags[i]
    if found[i - from + 1] or seen[tag] then
      tags[i] = tag .. '#' .. ARGV[1] .. ':' .. string.format('%.0f', ARGV[2] + i)
    end
    seen[tag] = true
  end
end

-- A microsecond between any two keeps their order, for whoever restores them.
local micros = math.min(tonumber(time[2]), 999999 - #tags)
local second = time[1] .. '.'
local entries, index, nth = {}, {}, 0
-- A sorted set of a few short elements is kept as a list and slow to add to; a long element makes it a proper one.
local long = string.rep('rwork', 20)
if #tags > 8 then index = { 0, long } end

local function register()
  redis.call('HSET', KEYS[3], unpack(entries))
  redis.call('ZADD', KEYS[4], unpack(index))
  entries, index = {}, {}
end
for _, group in ipairs(groups) do
  local back = ARGV[10 + steps + group[1]]
  for i = 3, #group, 2 do
    nth = nth + 1
    local tag, n, m = tags[nth], #entries, #index
    group[i] = tag
    entries[n + 1], entries[n + 2] = tag, '[' .. group[i + 1] .. back
    local micro = micros + nth
    if micro < 100000 then micro = string.format('%06d', micro) end
    index[m + 1], index[m + 2] = second .. micro, tag
    if n >= 1000 then register() end
  end
end
if #index > 0 then register() end
if #tags > 8 then redis.call('ZREM', KEYS[4], long) end
for from = 1, #tags, 1000 do
  redis.call('SADD', KEYS[2], unpack(tags, from, math.min(from + 999, #tags)))
end
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return groups
