-- Commits a batch: records, messages to be published and the ends of deliveries, item by item. Everything that can refuse is
-- looked at before anything is written; from then on no error ends the script, and each item answers for itself.
--
-- KEYS  1 consumers  2 the consumer's hash  3 held  4 unacked  5 unacked_index  6 dead  7 letters  8 dead counts
--         (those three are others of these where nothing becomes a dead letter: who may not touch them must not be kept
--         from the rest)
--       9 incarnation, then the keys that are named by place
-- ARGV  1 consumer; '': nobody's, only to publish  2 token  3 number of the batch; 0: none, the ends of deliveries are
--         enough to tell that it was done
--       4 database of the records, '' when it is this one  5 this database
--       6 number of values that were looked at, and for each: place, '1' when it is a success, value
--       then the number of queues to bind, and for each: place of its bindings, of its permanent ones, binding
--       then items: kind, tag, '1' when starts were written for it, number of records, number of posts, what the kind needs,
--         records: place, record, milliseconds to live or ''
--         posts: 'now', list, envelope or 'later', delayed, parked, id, milliseconds to wait, step:envelope
-- Answer  nil when the line is not the consumer's present one; { '?', place, value, ... } for values that must be looked at first; else
--         { answers, deliveries of records }
--         answers: for each item D done, L lost, R refused; then for each refusal a line: part, reason
--         deliveries of records: for each 0 not written, 1 somebody listened, 2 nobody, 3 the server refuses to publish

local number = tonumber(ARGV[3])
if ARGV[1] ~= '' then
  -- One that was reaped may still commit: what has a receipt is lost then, what has none is nobody else's.
  if redis.call('HGET', KEYS[2], 'token') ~= ARGV[2] then return false end
  local last = redis.call('HMGET', KEYS[2], 'number', 'answers')
  if number > 0 and last[1] then
    if tonumber(last[1]) == number then return { last[2], '' } end
    if tonumber(last[1]) > number then return false end
  end
end

-- What each kind needs: nothing; the count; list, envelope; delayed, parked, id, wait, step:envelope; queue, random, letter;
-- part, reason.
local NEEDS = { ack = 0, hold = 0, free = 0, start = 1, back = 2, head = 2, park = 5, dead = 3, refused = 2 }
local ENDS = { ack = true, back = true, head = true, park = true, dead = true }

local at, looked = 7, {}
for _ = 1, tonumber(ARGV[6]) do
  looked[tonumber(ARGV[at])] = { ARGV[at + 1] == '1', ARGV[at + 2] }
  at = at + 3
end
local bindings = at
at = at + 1 + 3 * tonumber(ARGV[at])

local items, records_at = {}, {}
while at <= #ARGV do
  local kind = ARGV[at]
  local item = { kind = kind, tag = ARGV[at + 1], has_starts = ARGV[at + 2] == '1', own = at + 5 }
  local records, posts = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  at = at + 5 + NEEDS[kind]
  item.record, item.post = at, at + 3 * records
  at = item.post
  for _ = 1, posts do at = at + (ARGV[at] == 'now' and 3 or 6) end
  item.last = at - 1
  for record = item.record, item.post - 1, 3 do records_at[#records_at + 1] = record end
  items[#items + 1] = item
end

local ours = { [3] = 'set', [4] = 'hash', [5] = 'zset' }

-- Looks at keys. A wrong type in a place of ours is for somebody to mend, and no item's fault.
local types = {}
local function is(place, wanted)
  types[place] = types[place] or redis.call('TYPE', KEYS[place]).ok
  return types[place] == wanted or types[place] == 'none'
end
for place, wanted in pairs(ours) do
  if not is(place, wanted) then
    return redis.error_reply('ERR expected `' .. KEYS[place] .. '` to be a ' .. wanted .. ', found a ' .. types[place])
  end
end

local function refusal(place, wanted)
  if is(place, wanted) then return nil end
  return 'expected `' .. KEYS[place] .. '` to be a ' .. wanted .. ', found a ' .. types[place]
end

local function refusal_of_posts(item)
  local post, why = item.post, nil
  while post <= item.last and not why do
    if ARGV[post] == 'now' then
      why = refusal(tonumber(ARGV[post + 1]), 'list')
      post = post + 3
    else
      why = refusal(tonumber(ARGV[post + 1]), 'zset') or refusal(tonumber(ARGV[post + 2]), 'hash')
      post = post + 6
    end
  end
  return why
end

local function refusal_of_end(item)
  local kind = item.kind
  if kind == 'back' or kind == 'head' then return refusal(tonumber(ARGV[item.own]), 'list') end
  if kind == 'dead' then return refusal(6, 'zset') or refusal(7, 'hash') or refusal(8, 'hash') end
  if kind ~= 'park' then return nil end
  return refusal(tonumber(ARGV[item.own]), 'zset') or refusal(tonumber(ARGV[item.own + 1]), 'hash')
end

local ended = {}
for _, item in ipairs(items) do
  if item.kind == 'refused' then
    item.part, item.why = ARGV[item.own], ARGV[item.own + 1]
  elseif item.kind ~= 'free' and (ended[item.tag] or redis.call('HEXISTS', KEYS[4], item.tag) == 0) then
    item.is_lost = true
  else
    item.part, item.why = 'f', refusal_of_posts(item)
    if not item.why then item.part, item.why = 's', refusal_of_end(item) end
    if not item.why and ENDS[item.kind] then ended[item.tag] = true end
  end
end

local function enter(db)
  if db ~= '' and db ~= ARGV[5] then redis.call('SELECT', db) end
end
local function leave(db)
  if db ~= '' and db ~= ARGV[5] then redis.call('SELECT', ARGV[5]) end
end

-- Looks at what stands in the places of records: a success is final. Values of other workers must be looked at by the caller.
local current, unknown = {}, { '?' }
local function look(record, value)
  -- Nothing, or a value of another type, which is no success: it is replaced.
  if not value then return end
  local place = tonumber(ARGV[record])
  local seen = looked[place]
  local is_success = string.sub(value, 1, 20) == '{"status": "SUCCESS"'
  if seen and seen[2] == value then
    is_success = seen[1]
  elseif string.sub(value, 1, 12) ~= '{"status": "' then
    unknown[#unknown + 1], unknown[#unknown + 2] = ARGV[record], value
  end
  current[place] = { is_success, #value }
end
if #records_at > 0 then
  enter(ARGV[4])
  for from = 1, #records_at, 900 do
    local keys = {}
    for nth = from, math.min(from + 899, #records_at) do keys[#keys + 1] = KEYS[tonumber(ARGV[records_at[nth]])] end
    for nth, value in ipairs(redis.call('MGET', unpack(keys))) do look(records_at[from + nth - 1], value) end
  end
  leave(ARGV[4])
  if #unknown > 1 then return unknown end
end

-- How much memory grows by all this, about.
local function growth()
  local bytes = 0
  for _, item in ipairs(items) do
    for nth = item.own, item.last do bytes = bytes + #ARGV[nth] end
    for record = item.record, item.post - 1, 3 do
      local stood = current[tonumber(ARGV[record])]
      bytes = bytes + (stood and -stood[2] or ENTRY_BYTES)
    end
    if ended[item.tag] then bytes = bytes - ENTRY_BYTES - redis.call('HSTRLEN', KEYS[4], item.tag) end
  end
  return bytes
end

look_for_room(KEYS[9])
if room and (ARGV[1] == '' or growth() > room) then
  return redis.error_reply('OOM command not allowed: used memory > \'maxmemory\'')
end
-- Writes that change nothing and take no memory. After them the server lets a script go on when memory is full, and a user
-- without the right to take away what is settled, or to note the answers, has been refused before anything is written.
redis.call('ZREM', KEYS[1], '')
if ARGV[1] ~= '' then
  redis.call('HDEL', KEYS[4], '')
  redis.call('SREM', KEYS[3], '')
  redis.call('ZREM', KEYS[5], '')
  redis.call('HDEL', KEYS[2], '')
  redis.call('HSET', KEYS[2], 'token', ARGV[2])
end

-- From here on no error may end the script.
local function failed(answer)
  return type(answer) == 'table' and answer.err
end

local told = {}
local function store(item)
  for record = item.record, item.post - 1, 3 do
    local place, value, expiry = tonumber(ARGV[record]), ARGV[record + 1], ARGV[record + 2]
    local is_success = string.sub(value, 1, 20) == '{"status": "SUCCESS"'
    local stands, heard = current[place] and current[place][1], '0'
    if not stands and not item.why and (is_success or not item.is_lost) then
      local set
      if expiry == '' then
        set = redis.pcall('SET', KEYS[place], value)
      else
        set = redis.pcall('SET', KEYS[place], value, 'PX', expiry)
      end
      if failed(set) then
        item.part, item.why = 'r', failed(set)
      else
        current[place] = { is_success, #value }
        local published = redis.pcall('PUBLISH', KEYS[place], value)
        heard = failed(published) and '3' or published > 0 and '1' or '2'
      end
    end
    told[#told + 1] = heard
  end
end
if #records_at > 0 then
  enter(ARGV[4])
  for _, item in ipairs(items) do store(item) end
  leave(ARGV[4])
end

for _ = 1, tonumber(ARGV[bindings]) do
  redis.pcall('SADD', KEYS[tonumber(ARGV[bindings + 1])], ARGV[bindings + 3])
  redis.pcall('SADD', KEYS[tonumber(ARGV[bindings + 2])], ARGV[bindings + 3])
  bindings = bindings + 3
end

local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

-- Puts a message aside: delayed, parked, id, milliseconds to wait, step:envelope.
local function park(own)
  local parked = redis.pcall('HSET', KEYS[tonumber(ARGV[own + 1])], ARGV[own + 2], ARGV[own + 4])
  if failed(parked) then return parked end
  return redis.pcall('ZADD', KEYS[tonumber(ARGV[own])], now + ARGV[own + 3], ARGV[own + 2])
end

local function post(item)
  local own = item.post
  while own <= item.last and not item.why do
    local answer
    if ARGV[own] == 'now' then
      answer = redis.pcall('LPUSH', KEYS[tonumber(ARGV[own + 1])], ARGV[own + 2])
      own = own + 3
    else
      answer = park(own + 1)
      own = own + 6
    end
    if failed(answer) then item.part, item.why = 'f', failed(answer) end
  end
end

local heads, settled, starts = {}, {}, {}
-- The end of a delivery. Its tag goes away after the message is where it should be.
local function finish(item)
  local kind, own, answer = item.kind, item.own, nil
  if kind == 'start' then
    answer = redis.pcall('HSET', KEYS[2], 's:' .. item.tag, ARGV[own])
  elseif kind == 'head' then
    heads[#heads + 1] = item
    return
  elseif kind == 'back' then
    answer = redis.pcall('LPUSH', KEYS[tonumber(ARGV[own])], ARGV[own + 1])
  elseif kind == 'park' then
    answer = park(own)
  elseif kind == 'dead' then
    answer = bury({ KEYS[6], KEYS[7], KEYS[8] }, time, ARGV[own + 1], ARGV[own], ARGV[own + 2])
  end
  if failed(answer) then
    item.part, item.why = 's', failed(answer)
  elseif ENDS[kind] then
    settled[#settled + 1] = item.tag
    if item.has_starts then starts[#starts + 1] = 's:' .. item.tag end
  end
end
for _, item in ipairs(items) do
  if item.is_lost then
    -- Tags are never used twice: nobody else has it.
    settled[#settled + 1] = item.tag
  elseif not item.why then
    post(item)
    if not item.why then finish(item) end
  end
end

-- The first taken is the next to be taken.
local function taken(item)
  return tonumber(string.match(item.tag, ':(%d+)$')) or 0
end
table.sort(heads, function(one, other) return taken(one) > taken(other) end)
for _, item in ipairs(heads) do
  local answer = redis.pcall('RPUSH', KEYS[tonumber(ARGV[item.own])], ARGV[item.own + 1])
  if failed(answer) then
    item.part, item.why = 's', failed(answer)
  else
    settled[#settled + 1] = item.tag
    if item.has_starts then starts[#starts + 1] = 's:' .. item.tag end
  end
end

local function chunks(key, command, names)
  for from = 1, #names, 900 do
    redis.pcall(command, key, unpack(names, from, math.min(from + 899, #names)))
  end
end
chunks(KEYS[4], 'HDEL', settled)
chunks(KEYS[3], 'SREM', settled)
chunks(KEYS[5], 'ZREM', settled)
chunks(KEYS[2], 'HDEL', starts)

local answers, lines = {}, {}
for nth, item in ipairs(items) do
  answers[nth] = item.why and 'R' or item.is_lost and 'L' or 'D'
  if item.why then lines[#lines + 1] = '\n' .. item.part .. string.gsub(item.why, '\n', ' ') end
end
local answer = table.concat(answers) .. table.concat(lines)
if number > 0 then redis.pcall('HSET', KEYS[2], 'number', ARGV[3], 'answers', answer) end
return { answer, table.concat(told) }
