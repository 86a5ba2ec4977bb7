-- A record and the server's time in one view. ARGV: the layout, string, hash or zset. The reply is
-- TIME's two texts, then of strings one text for each key, behind a "=" or empty if there is none,
-- of a hash its fields and values, of a zset its members and scores.
local reply = redis.call('TIME')
if ARGV[1] == 'string' then
  for i = 1, #KEYS do
    local text = redis.call('GET', KEYS[i])
    reply[i + 2] = text and '=' .. text or ''
  end
  return reply
end
local held
if ARGV[1] == 'hash' then
  held = redis.call('HGETALL', KEYS[1])
else
  held = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
end
for i = 1, #held do reply[i + 2] = held[i] end
return reply
