-- Publishes again what stands there, if it is a ready state.
--
-- KEYS  one per record, also the channel's name

local ready = { SUCCESS = true, FAILURE = true, REVOKED = true }
for _, key in ipairs(KEYS) do
  local record = redis.pcall('GET', key)
  local state = type(record) == 'string' and string.match(record, '^{"status": "(%u+)"')
  if ready[state] then redis.pcall('PUBLISH', key, record) end
end
