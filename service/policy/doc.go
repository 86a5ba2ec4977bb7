// Package policy reads policy files and builds the policies that a service answers for.
//
//	version: 1
//	defaults:
//	  prefix: shop            # of keys on a shared store; otherwise the policy's name
//	  failMode: open          # or closed: what to answer when the store cannot
//	limiters:
//	  api:
//	    strategy: gcra
//	    limit: 100
//	    period: 1m
//	    burst: 20
//	  login: { strategy: slidingWindowLog, limit: 5, period: 15m, failMode: closed }
//
// A file is YAML, or JSON if it begins with a bracket; its name does not matter. [Parse]
// reads it and reports everything that is wrong at once, each with line, column, field,
// rule and value. [File.Build] then makes the policies, all or none.
//
// # Strategies
//
//	gcra              limit, window (period, periodMs or windowMs); burst = limit
//	tokenBucket       capacity, refillPerSec
//	fixedWindow       limit, window (period or windowMs)
//	slidingWindow     limit, window (period or windowMs); buckets = 10
//	slidingWindowLog  limit, window (period or windowMs)
//	quota             limit, resetCadence; window (period or periodMs) for fixed and
//	                  rolling; anchor = 0 (epoch milliseconds), offsetMinutes = 0,
//	                  weekStartsOn = 1 (0 is Sunday), buckets = 10
//
// Every policy may have prefix and failMode.
//
// # Fair escrows
//
// Instead of a strategy, a policy may divide one limit among its keys, which are tenants:
//
//	fairEscrow           limit, window (window or windowMs); weights = 1 each,
//	                     maxKeys = 100000; quantum, to share the limit through the
//	                     store, and then key and prefix = tk:wfe
//	federatedFairEscrow  the same without quantum; region, key, prefix = tk:rfp
//
// Key is the policy's name by default. Both also take costRoom, costRoomMaxKeys,
// costRoomRingSize and unit, for monitors. Such a policy only checks, and has no prefix
// outside its block.
//
// # Budgets
//
// A policy may count tokens that were used already, as callers debit them:
//
//	tokenBudget  budget, window (window or windowMs), maxKeys = 100000; of one process
//	fleetBudget  the same on [Env.Store]; prefix = defaults.prefix, or the policy's name
//
// Such a policy only debits, and has no prefix outside its block.
//
// # Leases
//
// A block beside the strategy spends it in leases; a policy has at most one such block.
//
//	twoTier    mode = leased (cached-deny, strict), maxKeys = 65536; and for leased
//	           batch, lowWater = 0, windowCoupled = false, expireAfter or expireAfterMs,
//	           returnIdleAfter or returnIdleAfterMs,
//	           adaptive: minSize = 1, maxSize = 1000000, orderCost = 1, strandPenalty = 1
//	federated  batch = 16, lowWater = 0, prefix = tk:fed, region, maxKeys = 65536,
//	           returnIdleAfter or returnIdleAfterMs; needs [Env.Store]
//
// # Concurrency
//
// A policy may limit what is in flight, beside a strategy or without one, and beside a budget of costs:
//
//	concurrency             minLimit = 4, maxLimit = 512, initialLimit = minLimit, algorithm = gradient2
//	                        (aimd), rttWindow = 100, smoothing = 0.2, tolerance = 2, backoffRatio = 0.9,
//	                        queue = 0, queueTimeout = 500ms (or queueTimeoutMs; up to 25s, and 3/4 of what is
//	                        left of the caller's deadline); smoothing is for gradient2, backoffRatio for aimd;
//	                        recalibration: interval = 1m (or intervalMs), probeLimit, probeSamples = 5
//	distributedConcurrency  the same for each server; aggregate = median (min), allocation = equal-split
//	                        (demand-proportional), acknowledgedHandoff = false, eagerHandoff = false,
//	                        heartbeat = 1s, leaseTtl = 2s, minHeartbeat, fenceSafetyMargin (each also in Ms),
//	                        onCoordinatorOutage = fail-closed (local-only), selfFence = true,
//	                        prefix = tk:fed; needs [Env.Store] and [Env.Node]
//	budget                  budget, window (window or windowMs), or strategy and its fields; prefix = <that of the
//	                        policy>/cost, or <that of the defaults>/<name of the policy>/cost
//
// Such a policy only admits. Without strategy and budget it asks no store, and has neither prefix nor
// failMode. With both it needs a store that charges two records in one atomic step.
//
// # What a file may say
//
// A period is a number of milliseconds; a number with one of the units ms, s, m, h, d; or
// a Go duration such as 1h30m or 250us. It is kept to the nanosecond and may be up to 106751
// days. A window may be given by several fields if all say the same; if not, that is an error.
//
// A number stands in plain decimal notation, as in JSON. What only some readers of YAML
// take for a number is refused rather than guessed at: 0x10, 012, 1_000, +5, .5, .inf. So
// are numbers in quotes, except that a period may be quoted.
//
// A field that is null counts as not given. Unknown fields, fields of another strategy
// and repeated keys are errors. So are anchors, aliases, merge keys, tags, directives and
// further documents: what a line says must not depend on lines elsewhere.
//
// Files are UTF-8, up to [MaxFileBytes] long, with up to [MaxPolicies] policies.
package policy
