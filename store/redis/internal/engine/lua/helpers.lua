local max, min, fmod = math.max, math.min, math.fmod

-- A reply field, which Redis truncates toward zero.
local function whole(x)
  if x > MAX then return MAX end
  if x < -MAX then return -MAX end
  return x
end

-- A number that was stored; what is no finite number stops the script before it has written anything.
local function number(text)
  local x = tonumber(text)
  if not x or x - x ~= 0 then error('CORRUPT record: a field is not a finite number', 0) end
  return x
end

-- A time to live: always an integer, at least 1, and never so large that it needs an exponent.
local function ttl(x) return format('%.0f', min(MAX, max(1, ceil(x), least))) end
