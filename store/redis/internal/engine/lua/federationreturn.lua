-- Units come back into the window that ends at ended, if that is the current one and lacks any. The layout is in
-- federation.lua. Parameters: limit, width, ended.
local budget, finish = current(key, limit, width)
wait = 1
if budget < limit and finish == ended then
  allowed, wait, budget = 1, 0, min(limit, budget + cost)
  call('HSET', key, 'budget', format('%.0f', budget))
end
ceiling, left, reset = whole(limit), whole(max(0, floor(budget))), whole(finish)
