-- Windows of one width, aligned to the epoch. The layout is in window.lua. Parameters: limit, width.
allowed, ceiling, left, reset, wait = window(key, cost, write, limit, floor(now / width) * width, function(start)
  return start + width
end)
