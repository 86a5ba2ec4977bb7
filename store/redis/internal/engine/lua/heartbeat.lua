-- HASH: for each node its id = "limit in_flight expires share" and, with acknowledged handoff, " generation seq high", all
-- integers. The layout is shared with other implementations. Beside it stands the process that uses the id, as
-- "owner/<bytes of the id>/<id>/<owner>" = "0 0 0 0": to others a node whose time ran out long ago, which they remove; the next
-- beat brings it back. Parameters: leaving, smallest, by_demand, handoff, most nodes, limit, in_flight, lasts, seq, applied,
-- id_name, owner_name. left is the share, ceiling the fleet's, reset the generation and wait the number of nodes. It denies
-- if another owner of the id is live, with a ceiling of 0, or if most others are; wait says until when.
local LIMIT, IN_FLIGHT, EXPIRES, SHARE, GENERATION, SEQ, HIGH = 1, 2, 3, 4, 5, 6, 7
local byte, match, sub = string.byte, string.match, string.sub

local function stored(digits)
  local x = tonumber(digits)
  if x >= 1e14 then error('CORRUPT record: a number of a node is out of range', 0) end
  return x
end

local function read(field, text)
  local a, b, c, d, more = match(text, '^(%d+) (%d+) (%d+) (%d+)(.*)$')
  if more == '' then
    return { stored(a), stored(b), stored(c), stored(d), 0, 0, 0, name = field }
  end
  local e, f, g = match(more or '', '^ (%d+) (%d+) (%d+)$')
  if not g then error('CORRUPT record: a node is not of 4 or 7 numbers', 0) end
  return { stored(a), stored(b), stored(c), stored(d), stored(e), stored(f), stored(g), name = field }
end

-- Whether a name stands before this node's, by bytes, whatever the server's language is.
local own = { byte(id_name, 1, -1) }
local function before(name)
  for i = 1, #own do
    local x = byte(name, i)
    if x ~= own[i] then return not x or x < own[i] end
  end
  return false
end

local held, live, names, gone, marks, owner, self = call('HGETALL', key), {}, {}, {}, {}, '', nil
for i = 1, #held, 2 do
  local field, text = held[i], held[i + 1]
  local size, at = nil, nil
  if text == '0 0 0 0' then size, at = match(field, '^owner/(%d+)/()') end
  size = tonumber(size or '')
  if size and byte(field, at + size) == 47 then
    local mark = { field = field, name = sub(field, at, at + size - 1), owner = sub(field, at + size + 1) }
    marks[#marks + 1] = mark
    if mark.name == id_name then owner = mark.owner end
  else
    local node = read(field, text)
    if field == id_name then self = node end
    if node[EXPIRES] >= now then
      live[#live + 1], names[field] = node, true
    else
      gone[#gone + 1] = field
    end
  end
end

local known = self ~= nil
if self and self[EXPIRES] < now then self = nil end
if self and owner ~= '' and owner_name ~= '' and owner ~= owner_name then
  wait = self[EXPIRES] - now + 1
elseif leaving == 1 then
  allowed = 1
  if known then
    call('HDEL', key, id_name)
    for i = 1, #marks do
      if marks[i].name == id_name then call('HDEL', key, marks[i].field) end
    end
  end
elseif not self and #live >= most then
  local first = live[1][EXPIRES]
  for i = 2, #live do first = min(first, live[i][EXPIRES]) end
  ceiling, wait = #live, first - now + 1
else
  if not self then
    self, owner = { 0, 0, 0, 0, 0, 0, 0, name = id_name }, ''
    live[#live + 1], names[id_name] = self, true
  end
  if owner_name ~= '' then owner = owner_name end
  self[LIMIT], self[EXPIRES] = limit, now + lasts
  local limits, longest = {}, 0
  for i = 1, #live do
    limits[i], longest = live[i][LIMIT], max(longest, live[i][EXPIRES])
  end
  table.sort(limits)
  ceiling = smallest == 1 and limits[1] or limits[floor((#live + 1) / 2)]
  if handoff == 0 or seq > self[SEQ] then
    self[IN_FLIGHT] = in_flight
    local sharing, spare, rest, share = {}, ceiling, ceiling, nil
    for i = 1, #live do
      local node = live[i]
      if by_demand == 1 and node[IN_FLIGHT] < node[SHARE] then
        spare = spare - node[IN_FLIGHT] - 1
      else
        sharing[#sharing + 1] = node
      end
      if node ~= self then rest = rest - max(node[IN_FLIGHT], handoff == 1 and node[HIGH] or node[SHARE]) end
    end
    if by_demand == 1 and in_flight < self[SHARE] then
      share = in_flight + 1
    else
      spare = max(0, spare)
      local over, rank = fmod(spare, #sharing), 0
      share = floor(spare / #sharing)
      if over > 0 then
        for i = 1, #sharing do
          if before(sharing[i].name) then rank = rank + 1 end
        end
        if rank < over then share = share + 1 end
      end
      if by_demand == 1 then share = max(1, share) end
    end
    share = max(0, min(share, rest))
    if handoff == 0 then
      self[GENERATION], self[SEQ], self[HIGH] = 0, 0, 0
    else
      self[SEQ] = seq
      if share ~= self[SHARE] then self[GENERATION] = seq end
      self[HIGH] = applied >= self[GENERATION] and share or max(self[HIGH], share)
    end
    self[SHARE] = share
  end
  allowed, left, reset, wait = 1, self[SHARE], min(self[GENERATION], seq), #live
  for i = 1, #marks do
    local mark = marks[i]
    if not names[mark.name] or mark.name == id_name and mark.owner ~= owner then gone[#gone + 1] = mark.field end
  end
  for i = 1, #gone do call('HDEL', key, gone[i]) end
  local numbers = {}
  for i = 1, handoff == 1 and HIGH or SHARE do numbers[i] = format('%.0f', self[i]) end
  call('HSET', key, id_name, table.concat(numbers, ' '))
  if owner ~= '' then call('HSET', key, format('owner/%d/', #id_name) .. id_name .. '/' .. owner, '0 0 0 0') end
  call('PEXPIRE', key, ttl(longest - now))
end
