-- As much of the cost as fits, in whole units and at least smallest. decide is the strategy; what it
-- denies it has not written.
local charged = cost
local allowed, ceiling, left, reset, wait = decide(charged)
local fits = floor(left)
if allowed == 0 and fits >= smallest and fits < cost then
  charged = fits
  allowed, ceiling, left, reset, wait = decide(charged)
end
if allowed == 0 and charged > smallest then
  charged = smallest
  allowed, ceiling, left, reset, wait = decide(charged)
end
if allowed == 1 then left, wait = whole(charged), whole(reset - now) end
