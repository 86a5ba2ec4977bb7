-- HASH: ws = start of the window; for each region w:<region> = its weight and g:<region> = the units it was
-- granted, all %.17g. The layout is shared with other implementations. Windows are aligned to the epoch and only
-- roll forward. Parameters: limit, width, most regions, weight, ended, region_name. If ended is 0, the region wants cost units in
-- total; otherwise it gives cost units back to the window that ends at ended. ceiling is the region's total then, left is
-- what of it is new, wait is how long the window lasts. It denies a region beyond most, and units of another window.
local held = call('HGETALL', key)
local start, weights, granted, names, count = nil, {}, {}, {}, 0
for i = 1, #held, 2 do
  local x, field, name = number(held[i + 1]), string.sub(held[i], 1, 2), string.sub(held[i], 3)
  if held[i] == 'ws' then
    start = x
  elseif field == 'w:' or field == 'g:' then
    if not weights[name] then
      count = count + 1
      names[count], weights[name], granted[name] = name, 0, 0
    end
    if field == 'w:' then weights[name] = x else granted[name] = x end
  end
end
local rolled = count == 0 or not start or now >= start + width
if rolled then start, weights, granted, names, count = floor(now / width) * width, {}, {}, {}, 0 end
local finish = start + width
local lasts = max(1, ceil(finish - now))
reset, wait = whole(ceil(finish)), whole(lasts)
local known = weights[region_name] ~= nil
if (ended == 0 and (known or count < most)) or (known and ended == reset) then
  if not known then count = count + 1; names[count] = region_name end
  weights[region_name] = weight
  local before = granted[region_name] or 0
  local total, want = before, ceil(cost)
  if ended ~= 0 then
    total = max(0, before - want)
  elseif want > before then
    -- Sums are from the least summand up, so that they do not depend on the order of the fields.
    local function sum(parts)
      table.sort(parts)
      local all = 0
      for i = 1, #parts do all = all + parts[i] end
      return all
    end
    local parts, claims = {}, {}
    for i = 1, count do parts[i] = weights[names[i]] end
    local all = sum(parts)
    for i = 1, count do
      local name = names[i]
      if name ~= region_name then claims[#claims + 1] = max(granted[name], floor(weights[name] * limit / all)) end
    end
    total = max(before, min(want, floor(limit - sum(claims))))
  end
  allowed, ceiling, left = 1, whole(total), whole(max(0, total - before))
  if rolled then call('UNLINK', key) end
  call('HSET', key, 'ws', format('%.17g', start), 'w:' .. region_name, format('%.17g', weight),
    'g:' .. region_name, format('%.17g', total))
  call('PEXPIRE', key, ttl(lasts))
end
