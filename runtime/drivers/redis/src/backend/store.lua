-- Stores records and tells whoever waits; each stands alone.
--
-- KEYS  one per record, also the channel's name
-- ARGV  five per record: the record, its expiry in milliseconds ('' for none), whether a value was looked at ('1'), and it,
--       the microsecond of the server's clock before which it may be written ('' for any)
-- Answer  for each -2 where that has come, else what `store_record` answers

look_for_room(KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answers = {}
for i = 1, #KEYS do
  local record, expiry, looked, seen, moment = unpack(ARGV, i * 5 - 4, i * 5)
  if moment ~= '' and now >= tonumber(moment) then
    answers[i] = -2
  else
    answers[i] = store_record(KEYS[i], record, expiry, looked == '1' and seen or nil)
  end
end
return answers
