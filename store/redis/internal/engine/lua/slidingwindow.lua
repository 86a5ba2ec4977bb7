-- HASH: field p = tick mod (buckets + 1), value "tick:count" of the sub-window that owns the slot.
-- Parameters: span, limit, buckets. Numbers have the text of %.14g, which the layout fixes, but
-- for integers that it would not bring back: those are written whole. Sub-windows only roll forward.
local width, slots = span / buckets, buckets + 1
local held = call('HGETALL', key)
local counts, ticks, newest = {}, {}, 0
for i = 1, #held, 2 do
  local colon = string.find(held[i + 1], ':', 1, true)
  if not colon then error('CORRUPT record: a slot is not of the form tick:count', 0) end
  local tick = number(string.sub(held[i + 1], 1, colon - 1))
  local count = number(string.sub(held[i + 1], colon + 1))
  if tick >= 0 and fmod(tick, slots) == tonumber(held[i]) then -- else left by another number of buckets
    counts[tick] = count
    ticks[#ticks + 1] = tick
    newest = max(newest, tick)
  end
end
local tick = max(newest, floor(now / width))
local count, oldest = counts[tick] or 0, tick - buckets
table.sort(ticks) -- the sum of fractions depends on its order
local full, partly = 0, 0
for i = 1, #ticks do
  if ticks[i] == oldest then
    partly = counts[oldest]
  elseif ticks[i] > oldest and ticks[i] < tick then
    full = full + counts[ticks[i]]
  end
end
full = full + count
local weight = min(1, max(0, (width - max(0, now - tick * width)) / width))
local estimate = full + partly * weight
local projection, following = estimate + cost, (tick + 1) * width
if projection > limit then
  local over = projection - limit
  wait = ceil(following - now)
  if partly > 0 and over <= partly * weight then wait = ceil((over * width) / partly) end
  wait, left = whole(max(1, wait)), whole(max(0, floor(limit - estimate)))
else
  allowed, left = 1, whole(max(0, floor(limit - projection)))
  if write then
    count = count + cost
    local text = '%.17g:' .. (count == floor(count) and '%.17g' or '%.14g')
    call('HSET', key, format('%.0f', fmod(tick, slots)), format(text, tick, count))
    call('PEXPIRE', key, ttl(span + width))
  end
end
ceiling, reset = whole(limit), whole(ceil(following + span))
