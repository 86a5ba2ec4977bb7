-- Several keys in one step. ARGV: now, mode (1 all, 0 any), n, then for each key its type, cost
-- and parameters: 1 gcra (periodMs, limit, burst), 2 tokenBucket (capacity, refillPerSec, 0),
-- 3 fixedWindow (limit, windowMs, 0), 4 slidingWindow (windowMs, limit, buckets),
-- 5 slidingWindowLog (windowMs, limit, 0), 6 leakyBucket (ratePerSec, maxQueueMs, 0), 7 quota (limit,
-- mode, periodMs, anchor, offsetMs, weekStartsOn), 8 given (allowed, held, following, lasts), 9 token
-- budget (op, frames, id, amount, extra, lasts). The last
-- argument is the shortest time to live. The reply is five integers for each key, or none if a
-- given record has changed. All keys are decided before any is written.
local kinds = {
  { gcra, 3 }, { token_bucket, 3 }, { fixed_window, 3 }, { sliding_window, 3 },
  { sliding_window_log, 3 }, { leaky_bucket, 3 }, { quota, 6 }, { given, 4 }, { token_budget, 6 },
}
local all, position, ops, reply, all_allow = ARGV[2] == '1', 4, {}, {}, true
local function decide(i, write)
  local op = ops[i]
  return op.decide(KEYS[i], op.cost, write, unpack(op.parameters))
end
for i = 1, tonumber(ARGV[3]) do
  local kind = kinds[tonumber(ARGV[position])]
  local op = { decide = kind[1], cost = tonumber(ARGV[position + 1]), parameters = {} }
  for p = 1, kind[2] do
    local text = ARGV[position + 1 + p]
    op.parameters[p] = kind[1] == given and text or tonumber(text) or text
  end
  position, ops[i] = position + 2 + kind[2], op
  local first = #reply
  reply[first + 1], reply[first + 2], reply[first + 3], reply[first + 4], reply[first + 5] = decide(i, false)
  if reply[first + 1] < 0 then return {} end
  op.allowed = reply[first + 1] == 1
  all_allow = all_allow and op.allowed
end
if all and not all_allow then return reply end
for i = 1, #ops do
  if ops[i].allowed or ops[i].decide == given then decide(i, true) end
end
return reply
