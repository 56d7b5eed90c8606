-- Part of `store`, for any script that stores records: one record, and telling whoever waits for it.

-- Bytes that records may still take; nil: memory is not full.
local room

-- While memory is full, all records together may take so much beyond the server's limit.
local BEYOND_BYTES_MAX = 16 * 1024 * 1024
-- What an entry takes besides its key and its value, rounded up.
local ENTRY_BYTES = 256

-- Finds out whether memory is full, and if it is how much room there is. Comes before anything is written; `key` is one of
-- the records' keys. Neither command changes anything, but both are writes, and after one that takes no memory the server
-- lets a script go on.
local function look_for_room(key)
  local tried = redis.pcall('SETRANGE', key, 0, '')
  if type(tried) ~= 'table' or not string.find(tried.err, 'OOM', 1, true) then return end
  redis.pcall('GETEX', key)
  local info = redis.pcall('INFO', 'memory')
  room = 0
  -- Without the right to ask there is no room.
  if type(info) ~= 'string' then return end
  local function number(name) return tonumber(string.match(info, '\n' .. name .. ':(%d+)') or 0) end
  -- Arguments and what clients' lines hold are here for a moment; replicas' and the log's buffers the server itself does not
  -- count.
  local arguments = 0
  for _, argument in ipairs(ARGV) do arguments = arguments + #argument end
  local passing = math.max(arguments, number('mem_clients_normal')) + number('mem_not_counted_for_evict')
  room = math.max(0, number('maxmemory') + BEYOND_BYTES_MAX - number('used_memory') + passing)
end

-- Stores a record. `expiry` in milliseconds, '' for none; `seen`: a value that was looked at and is no success.
-- Answer  1 written, 2 written and nobody listened, 3 written and the server refuses to publish, 0 a success stands there,
--         -1 there is no room, or the value that must be looked at first
local function store_record(key, record, expiry, seen)
  local current = redis.pcall('GET', key)
  -- A value of another type is no success: it is replaced.
  if type(current) ~= 'string' then current = nil end
  if current and string.sub(current, 1, 20) == '{"status": "SUCCESS"' then return 0 end
  if current and string.sub(current, 1, 12) ~= '{"status": "' and current ~= seen then return current end
  if room then
    local growth = #record - (current and #current or -#key - ENTRY_BYTES)
    if growth > room then return -1 end
    room = room - growth
  end
  if expiry == '' then
    redis.call('SET', key, record)
  else
    redis.call('SET', key, record, 'PX', expiry)
  end
  local heard = redis.pcall('PUBLISH', key, record)
  if type(heard) == 'table' then return 3 end
  return heard > 0 and 1 or 2
end
