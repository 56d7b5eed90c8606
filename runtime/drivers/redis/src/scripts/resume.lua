-- Begins a new line of a consumer: compares and sets the token, and tells what is held.
--
-- KEYS  1 consumers  2 the consumer's hash  3 held  4 unacked  5 incarnation
-- ARGV  1 consumer  2 new token  3 incarnation  4 lease in milliseconds, then the tokens that may be ours
-- Answer  'forgotten', 'dead', or the tags that are held

if redis.call('GET', KEYS[5]) ~= ARGV[3] then return 'forgotten' end
local token, is_ours = redis.call('HGET', KEYS[2], 'token'), false
for i = 5, #ARGV do is_ours = is_ours or token == ARGV[i] end
if not is_ours then return 'dead' end

-- A write that takes no memory: after it the server lets a script go on when memory is full.
redis.call('PERSIST', KEYS[1])
redis.call('HSET', KEYS[2], 'token', ARGV[2])
if not score_of(ARGV[1]) then return 'dead' end
show_life(tonumber(ARGV[4]))
local held = {}
for _, tag in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  if redis.call('HEXISTS', KEYS[4], tag) == 1 then
    held[#held + 1] = tag
  else
    -- A peer restored it.
    redis.call('SREM', KEYS[3], tag)
  end
end
return held
