-- As much of the cost as the budget has, if that is at least smallest. The layout is in federation.lua. Parameters: limit,
-- width, smallest. left is what was granted, or what there is; a grant of nothing writes nothing.
local budget, finish, another = current(key, limit, width)
local granted = max(0, min(cost, floor(budget)))
if granted >= 1 and granted >= smallest then
  allowed = 1
  if another then call('UNLINK', key) end
  call('HSET', key, 'budget', format('%.0f', budget - granted), 'expiresAt', format('%.0f', finish))
  call('PEXPIRE', key, ttl(finish - now))
end
ceiling, left, reset, wait = whole(limit), whole(granted), whole(finish), whole(finish - now)
