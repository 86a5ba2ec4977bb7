-- ZSET: one member "time-rank" for each unit, scored by its time. Parameters: span, limit. A denial
-- removes nothing, so that a clock which steps back still finds what counted then; an allowance
-- removes what has expired, which bounds the set by the limit. A clock that steps back logs the
-- newest time.
local units, edge = ceil(cost), format('%.17g', now - span)
local after = '(' .. edge
local count = call('ZCOUNT', key, after, '+inf')
local function at(i) return number(call('ZRANGEBYSCORE', key, after, '+inf', 'WITHSCORES', 'LIMIT', i, 1)[2]) end
local oldest = count > 0 and at(0) or now
if count + units > limit then
  wait = span
  if count > 0 then -- the request fits when the k oldest have left
    local k = ceil(min(count, max(1, count + units - limit)))
    wait = ceil(at(k - 1) + span - now)
  end
  wait = whole(max(1, wait))
else
  allowed = 1
  if write then
    local stamp = count > 0 and max(now, at(count - 1)) or now
    call('ZREMRANGEBYSCORE', key, '-inf', edge)
    local score, rank, added = format('%.17g', stamp), count, 0
    while added < units do -- a name that another implementation has taken is passed over
      local members = {}
      for _ = 1, min(units - added, 1000) do
        rank = rank + 1
        members[#members + 1] = score
        members[#members + 1] = score .. '-' .. format('%.17g', rank)
      end
      added = added + call('ZADD', key, 'NX', unpack(members))
    end
    call('PEXPIRE', key, ttl(span))
  end
  count = count + units
end
ceiling, left, reset = whole(limit), whole(max(0, limit - count)), whole(ceil(oldest + span))
