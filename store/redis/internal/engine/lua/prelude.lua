-- What every script begins with. Each strategy is written once, as the body of a function: it
-- takes key, cost, write and its parameters, and sets allowed, ceiling, left, reset and wait. A
-- script of one strategy is that body; the script over several keys wraps a function around each.
-- So there is one form of each, and the order of every floating-point operation is that of the Go core.
local MAX = 9007199254740991 -- 2^53-1, which saturates replies and times to live
local ARGV, call, format, floor, ceil = ARGV, redis.call, string.format, math.floor, math.ceil

-- The time in milliseconds. The text 0 asks for the server's clock; a caller whose own clock
-- stands at 0 writes it differently.
local now = ARGV[1]
if now == '0' then
  local time = call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
else
  now = now + 0
end
