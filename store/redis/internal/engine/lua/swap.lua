-- Writes a text if the record is still what the client decided on. ARGV: what it held and
-- what to write, each behind a "=" or empty for none, and the time to live.
local text = redis.call('GET', KEYS[1])
if (text and '=' .. text or '') ~= ARGV[1] then return { 0 } end
redis.call('SET', KEYS[1], string.sub(ARGV[2], 2), 'PX', ARGV[3])
return { 1 }
