-- Stores records and tells whoever waits; each stands alone.
--
-- KEYS  one per record, also the channel's name
-- ARGV  four per record: the record, its expiry in milliseconds ('' for none), whether a value was looked at ('1'), and it
-- Answer  what `store_record` answers, for each

look_for_room(KEYS[1])
local answers = {}
for i = 1, #KEYS do
  local at = (i - 1) * 4
  answers[i] = store_record(KEYS[i], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3] == '1' and ARGV[at + 4] or nil)
end
return answers
