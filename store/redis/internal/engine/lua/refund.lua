-- Units come back into the window that ends at ended, if that is the current one and holds any.
-- It stands in for window.lua. A window that nothing is counted in is no record at all.
local function window(key, cost, write, limit, start, finish)
  local count
  start, count = current(key, start)
  local reset = whole(ceil(finish(start)))
  local allowed, wait = 0, 1
  if count > 0 and cost > 0 and reset == ended then
    allowed, wait, count = 1, 0, max(0, count - cost)
    if count > 0 then
      call('HSET', key, 'c', format('%.17g', count))
    else
      call('UNLINK', key)
    end
  end
  return allowed, whole(limit), whole(max(0, floor(limit - count))), reset, wait
end
