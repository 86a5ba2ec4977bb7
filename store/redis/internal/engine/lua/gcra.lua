-- STRING: the theoretical arrival time, %.17g. Parameters: period, limit, burst.
-- This is the strategy to be fast: the helpers of the others are written out.
local t = period / limit
local tau = t * burst
local e, held = 0, call('GET', key)
if held then
  e = tonumber(held)
  if not e or e - e ~= 0 then error('CORRUPT record: it is not a finite number', 0) end
end
if e < now then e = now end
local n = e + t * cost
local from = n - tau
if now < from then
  wait = ceil(from - now)
  if wait < 1 then wait = 1 elseif wait > MAX then wait = MAX end
else
  allowed, e = 1, n
  if write then
    local lasts = ceil(n - now)
    if lasts < least then lasts = least end
    if lasts < 1 then lasts = 1 elseif lasts > MAX then lasts = MAX end
    call('SET', key, format('%.17g', n), 'PX', format('%.0f', lasts))
  end
end
left, reset, ceiling = floor((tau - (e - now)) / t), ceil(e), burst
if left < 0 then left = 0 elseif left > MAX then left = MAX end
if reset > MAX then reset = MAX end
if ceiling > MAX then ceiling = MAX end
