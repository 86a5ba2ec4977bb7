-- HASH: t = tokens, l = latest time seen, both %.17g. Parameters: capacity, refill per second.
-- A clock that steps back refills nothing and leaves l where it is, so that no interval is refilled twice.
local rate = refill / 1000
local held = call('HMGET', key, 't', 'l')
local tokens, last = capacity, now
if held[1] and held[2] then
  last = number(held[2])
  local elapsed = max(0, now - last)
  tokens = min(capacity, number(held[1]) + elapsed * rate)
  last = last + elapsed
end
if tokens < cost then
  wait = whole(max(1, ceil((cost - tokens) / rate)))
else
  allowed, tokens = 1, tokens - cost
  if write then
    call('HSET', key, 't', format('%.17g', tokens), 'l', format('%.17g', last))
    call('PEXPIRE', key, ttl(capacity / rate))
  end
end
ceiling, left, reset = whole(capacity), whole(max(0, floor(tokens))), whole(now + whole(ceil((capacity - tokens) / rate)))
