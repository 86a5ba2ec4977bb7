-- One check of a window. The layout is in current.lua; finish tells where a window ends.
local function window(key, cost, write, limit, start, finish)
  local count
  start, count = current(key, start)
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
