-- Stores records and tells whoever waits. KEYS: one per record, also the channel's name. ARGV, four per record:
-- the record, its expiry in ms ('' for none), whether a value was looked at ('1'), and that value.
-- Answers per record: 1 written, 0 a success stands there, or the value that must be looked at first.
local answers = {}
for i = 1, #KEYS do
  local key, at = KEYS[i], (i - 1) * 4
  local record, expiry, looked = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3] == '1'
  local current = redis.call('GET', key)
  if current and string.sub(current, 1, 20) == '{"status": "SUCCESS"' then
    answers[i] = 0
  elseif current and string.sub(current, 1, 12) ~= '{"status": "' and not (looked and current == ARGV[at + 4]) then
    answers[i] = current
  else
    if expiry == '' then
      redis.call('SET', key, record)
    else
      redis.call('SET', key, record, 'PX', expiry)
    end
    redis.call('PUBLISH', key, record)
    answers[i] = 1
  end
end
return answers
