-- HASH: budget = what is left of the window, expiresAt = where it ends, both integers; other fields end with
-- the window. The layout is shared with other implementations. Windows are aligned to the epoch and only roll
-- forward; one whose budget is whole is as good as none. The results are the budget, the window's end, and
-- whether what the key holds is of another window.
local function current(key, limit, width)
  local finish = ceil(floor(now / width) * width + width)
  local held = call('HMGET', key, 'budget', 'expiresAt')
  if not held[1] or not held[2] then return limit, finish, true end
  local budget, ended = number(held[1]), number(held[2])
  if budget < limit and ended >= finish then return budget, ended, false end
  return limit, finish, ended ~= finish
end
