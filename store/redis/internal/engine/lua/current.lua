-- HASH: s = start of the window, c = units counted in it, both %.17g. It serves fixed windows
-- and quotas. start is that of the window which contains now. Windows only roll forward: a later
-- window that the record has reached stays current. The results are its start and its count.
local function current(key, start)
  local held = call('HMGET', key, 's', 'c')
  local begun, count = 0, 0
  if held[1] and held[2] then begun, count = number(held[1]), number(held[2]) end
  if count > 0 and begun >= start then return begun, count end
  return start, 0
end
