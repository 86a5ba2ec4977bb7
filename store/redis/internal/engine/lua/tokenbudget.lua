-- HASH: w = start of the first window, s = tokens served in it, a layout that is shared with other implementations; w1, s1
-- and so on of further windows; r:<id> = a live reservation, "remainder expires total", then start and tokens charged for
-- each window. All numbers are %.17g. Parameters: op (0 peek, 1 debit, 2 fit, 3 refund, 4 admit, 5 settle, 6 renew,
-- 7 inspect), frames_name (of each window "limit:width", or "limit:0:" and four boundaries of a calendar), id_name ("r:" and
-- the id), amount, extra, lasts. A ceiling of -1 says that the boundaries do not reach the instant in reset.
local frames, starts, served, ends, fields = {}, {}, {}, {}, {}
for text in string.gmatch(frames_name, '[^;]+') do
  local frame = {}
  for x in string.gmatch(text, '[^:]+') do frame[#frame + 1] = number(x) end
  frames[#frames + 1] = frame
end
local windows = #frames
for i = 1, windows do
  local suffix = i > 1 and format('%.0f', i - 1) or ''
  fields[2 * i - 1], fields[2 * i] = 'w' .. suffix, 's' .. suffix
end
local held = call('HMGET', key, unpack(fields))
local at = now
for i = 1, windows do
  starts[i], served[i] = 0, 0
  if held[2 * i - 1] and held[2 * i] then starts[i], served[i] = number(held[2 * i - 1]), number(held[2 * i]) end
  at = max(at, starts[i])
end
local known, first_end, last_end = true, MAX, 0
for i = 1, windows do
  local frame, begun = frames[i], nil
  if frame[2] > 0 then
    begun = starts[i]
    local start = floor(at / frame[2]) * frame[2]
    if at >= begun + frame[2] and start > begun then begun, served[i] = start, 0 end
    ends[i] = begun + frame[2]
  elseif at < frame[3] or at >= frame[6] then
    known = false
    break
  else
    local b = 5
    while frame[b] > at do b = b - 1 end
    begun = starts[i]
    if begun < frame[b] then begun, served[i] = frame[b], 0 end
    ends[i] = frame[b + 1]
  end
  starts[i] = begun
  first_end, last_end = min(first_end, ends[i]), max(last_end, ends[i])
end

-- A reservation: remainder, expires, total, then start and tokens for each window.
local function reservation(text)
  local r = {}
  for x in string.gmatch(text, '[^ ]+') do r[#r + 1] = number(x) end
  if #r < 3 then error('CORRUPT record: a reservation is too short', 0) end
  for i = #r + 1, 3 + 2 * windows do r[i] = 0 end
  return r
end
local mine, count, outstanding, soonest, expired = nil, 0, 0, MAX, {}
if op == 4 or op == 7 then
  local all = call('HGETALL', key)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 2) == 'r:' then
      local remainder, expires = string.match(all[i + 1], '^([^ ]+) ([^ ]+)')
      expires = number(expires or '')
      if expires <= now then
        expired[#expired + 1] = all[i]
      else
        count, outstanding, soonest = count + 1, outstanding + number(remainder), min(soonest, expires)
      end
    end
  end
elseif id_name ~= 'r:' then
  local text = call('HGET', key, id_name)
  if text then
    mine = reservation(text)
    if mine[2] <= now then mine = nil end
  end
end

local function charge(tokens, r)
  for i = 1, windows do served[i] = min(served[i] + tokens, MAX) end
  if not r then return end
  r[3] = min(r[3] + tokens, MAX)
  for i = 1, windows do
    if r[2 + 2 * i] ~= starts[i] then r[2 + 2 * i], r[3 + 2 * i] = starts[i], 0 end
    r[3 + 2 * i] = min(r[3 + 2 * i] + tokens, MAX)
  end
end
local function join(r)
  local parts = {}
  for i = 1, #r do parts[i] = format('%.17g', r[i]) end
  return table.concat(parts, ' ')
end

ceiling, reset = frames[1][1], ceil(ends[1] or 0)
if not known then
  ceiling, reset, wait = -1, whole(ceil(at)), 1
elseif op == 3 then
  reset = ceil(first_end)
  if reset == amount and served[1] > 0 then allowed = 1 else wait = 1 end
elseif op == 5 then
  if mine then
    allowed, left = 1, ceil(mine[3])
  elseif extra >= 0 and amount > extra then
    allowed, left = 1, ceil(extra)
  else
    wait = 1
  end
elseif op == 6 then
  ceiling, reset = 0, 0
  if mine then allowed = 1 else wait = 1 end
elseif op == 7 then
  allowed, ceiling, left, reset = 1, count, whole(ceil(outstanding)), 0
elseif op == 4 and count >= extra then
  ceiling, reset, wait = 0, whole(ceil(soonest)), max(1, ceil(soonest - now))
else
  for i = 1, windows do
    local limit, fits, finish = frames[i][1], nil, ceil(ends[i])
    local later, rest = max(1, finish - now), limit - served[i] - outstanding
    if op == 2 then
      fits = cost <= rest
    elseif op == 4 then
      local all = cost + min(amount, max(0, limit - cost))
      fits = all <= rest
      if not fits and all <= limit - served[i] then later = max(1, min(later, ceil(soonest - now))) end
    else
      fits = rest >= 1
    end
    if fits then
      later = 0
      if op ~= 0 then rest = rest - cost end
      if op == 2 then
        finish = ceil(first_end)
        later = max(1, finish - now)
      end
    end
    rest = whole(max(0, floor(rest)))
    local verdict = fits and 1 or 0
    local binds
    if verdict ~= allowed then
      binds = not fits
    elseif fits then
      binds = rest < left
    else
      binds = later > wait
    end
    if i == 1 or binds then allowed, ceiling, left, reset, wait = verdict, limit, rest, whole(finish), later end
  end
end

if allowed == 1 and write and op ~= 0 and op ~= 7 then
  local lasting = last_end
  if op == 1 or op == 2 then
    charge(cost, mine)
    if mine then mine[1], mine[2] = max(0, mine[1] - cost), max(mine[2], now + lasts) end
  elseif op == 3 then
    for i = 1, windows do served[i] = max(0, served[i] - cost) end
  elseif op == 4 then
    mine = reservation('0 0 0')
    mine[1], mine[2] = amount, now + lasts
    charge(cost, mine)
    if #expired > 0 then call('HDEL', key, unpack(expired)) end
  elseif op == 5 then
    if not mine then
      charge(amount - extra)
    else
      local excess = amount - mine[3]
      if amount >= 0 and excess > 0 then
        charge(excess)
      elseif amount >= 0 then
        for i = 1, windows do
          -- What is too much may have been charged in other windows.
          local back = max(0, -excess - (mine[3] - mine[3 + 2 * i]))
          if mine[2 + 2 * i] == starts[i] then served[i] = max(0, served[i] - back) end
        end
      end
      call('HDEL', key, id_name)
      mine = nil
    end
  else
    mine[2] = max(mine[2], now + lasts)
  end
  local values = {}
  for i = 1, windows do
    local n = #values
    values[n + 1], values[n + 2] = fields[2 * i - 1], format('%.17g', starts[i])
    values[n + 3], values[n + 4] = fields[2 * i], format('%.17g', served[i])
  end
  if mine then
    values[#values + 1], values[#values + 2] = id_name, join(mine)
    lasting = max(lasting, mine[2])
  end
  call('HSET', key, unpack(values))
  call('PEXPIRE', key, format('%.0f', max(call('PTTL', key), ttl(lasting - now) + 0)))
end
