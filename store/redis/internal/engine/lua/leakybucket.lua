-- STRING: the next departure, %.17g. Parameters: rate per second, longest wait. An admitted request
-- may have to wait, too.
local interval = 1000 / rate
local held = call('GET', key)
local departure = max(held and number(held) or 0, now)
local delay = departure - now
if delay > longest then
  wait = whole(max(1, ceil(delay - longest)))
else
  allowed, wait = 1, whole(ceil(delay))
  departure = departure + interval * cost
  if write then call('SET', key, format('%.17g', departure), 'PX', ttl(departure - now)) end
end
