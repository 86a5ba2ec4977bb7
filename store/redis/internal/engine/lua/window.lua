-- HASH: s = start of the window, c = units counted in it, both %.17g. It serves fixed windows
-- and quotas. start is that of the window which contains now; finish tells where a window ends.
-- Windows only roll forward: a later window that the record has reached stays current.
local function window(key, cost, write, limit, start, finish)
  local held = call('HMGET', key, 's', 'c')
  local begun, count = 0, 0
  if held[1] and held[2] then begun, count = number(held[1]), number(held[2]) end
  if count > 0 and begun >= start then start = begun else count = 0 end
  local reset = finish(start)
  local lasts = max(1, ceil(reset - now))
  local allowed, wait = 0, whole(lasts)
  if count + cost <= limit then
    allowed, wait, count = 1, 0, count + cost
    if write then
      call('HSET', key, 's', format('%.17g', start), 'c', format('%.17g', count))
      call('PEXPIRE', key, ttl(lasts))
    end
  end
  return allowed, whole(limit), whole(max(0, floor(limit - count))), whole(ceil(reset)), wait
end
