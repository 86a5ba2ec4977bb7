-- Calendar and fixed quotas; rolling ones are sliding windows. The layout is in window.lua.
-- Parameters: limit, mode (1 month, 2 week, 3 day, 4 fixed), period, anchor, offset, week_start.
-- Days are counted from the epoch in local time, which is offset milliseconds ahead of UTC.
-- week_start is 0 for Sunday to 6 for Saturday.
local DAY = 86400000
local today = floor((now + offset) / DAY)
local start, finish
if mode == 1 then
  start = month(today) * DAY - offset
  -- No month has more than 31 days, and none fewer than 28: 31 days on lies in the next one.
  finish = function(s) return month(month(floor((s + offset) / DAY)) + 31) * DAY - offset end
elseif mode == 4 then
  start = anchor + floor((now - anchor) / period) * period
  finish = function(s) return s + period end
else
  local days = 1
  if mode == 2 then -- day 0 was a Thursday, 4 when Sunday is 0
    days, today = 7, today - (today + 4 - week_start) % 7
  end
  start = today * DAY - offset
  finish = function(s) return s + days * DAY end
end
allowed, ceiling, left, reset, wait = window(key, cost, write, limit, start, finish)
