package main

import (
	"math"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
)

// mode is a way of holding a fleet to one limit.
type mode struct {
	name string
	// limit is what admissions have to keep to, and charged what the store charges by.
	limit, charged throttlekit.Strategy
	// strict asks the store for every request. Otherwise nodes lease.
	strict bool
	// lasts is for how long a grant may be spent, given the time to the window's end; 0 is for ever.
	lasts func(resetsIn time.Duration) time.Duration
	// wall compares the node's own wall clock with the store's window instead.
	wall bool
	// learned lets nodes learn the size of their batches.
	learned bool
	// bound is by how much a window, or the burst, may be exceeded.
	bound func(nodes int, batch int64) float64
}

const (
	limit  = 20_000.0 // per second
	window = time.Second
	burst  = 8_000.0
	expiry = 200 * time.Millisecond
)

func exact(int, int64) float64 { return 0 }

func never(time.Duration) time.Duration { return 0 }

func toTheEnd(resetsIn time.Duration) time.Duration { return resetsIn }

func untilExpiry(time.Duration) time.Duration { return expiry }

// modes are all modes that are compared. Those whose name begins with "not:" break a rule
// on purpose, to show what it is for.
func modes() ([]mode, error) {
	fixed := throttlekit.FixedWindow{Limit: limit, Window: window}
	bucket := throttlekit.TokenBucket{Capacity: burst, RefillPerSec: limit}
	log := throttlekit.SlidingWindowLog{Limit: limit, Window: window}
	paidBucket, err := bucket.Defer(expiry)
	if err != nil {
		return nil, err
	}
	paidLog, err := log.Defer(expiry)
	if err != nil {
		return nil, err
	}
	return []mode{
		{name: "strict", limit: fixed, charged: fixed, strict: true, bound: exact},
		{
			name: "carryover", limit: fixed, charged: fixed, lasts: never,
			bound: func(nodes int, batch int64) float64 { return float64(nodes) * float64(batch+batch/4) },
		},
		{name: "window-coupled", limit: fixed, charged: fixed, lasts: toTheEnd, bound: exact},
		{name: "window-coupled, learned", limit: fixed, charged: fixed, lasts: toTheEnd, learned: true, bound: exact},
		{name: "time-coupled bucket", limit: bucket, charged: paidBucket, lasts: untilExpiry, bound: exact},
		{name: "time-coupled log", limit: log, charged: paidLog, lasts: untilExpiry, bound: exact},
		{name: "not: wall clocks", limit: fixed, charged: fixed, lasts: toTheEnd, wall: true, bound: unbounded},
		{name: "not: burst unpaid", limit: bucket, charged: bucket, lasts: untilExpiry, bound: unbounded},
	}, nil
}

func unbounded(int, int64) float64 { return math.Inf(1) }

// batchFor gives each node up to a quarter of its even share at once.
func batchFor(nodes int) int64 { return max(1, min(1024, int64(limit)/int64(4*nodes))) }

// sizer is what a node asks for at once.
func (m mode) sizer(nodes int) (lease.Sizer, error) {
	if !m.learned {
		return nil, nil //nolint:nilnil // no sizer is a size that does not change
	}
	return lease.NewLearner(lease.LearnerConfig{OrderCost: 4, MaxSize: 2048, InitialSize: float64(batchFor(nodes))})
}
