package monitor

import (
	"math"
	"slices"
	"time"
)

// Latency sums up how long the latest decisions of a policy took: those that were timed, at most 256. Windows do not reset it.
type Latency struct {
	// AvgMs is the mean, in milliseconds.
	AvgMs float64 `json:"avgMs"`
	// P50Ms and P99Ms are percentiles by nearest rank, in milliseconds (server specification §3.2).
	P50Ms float64 `json:"p50Ms"`
	P99Ms float64 `json:"p99Ms"`
	// MaxMs is the longest, in milliseconds.
	MaxMs float64 `json:"maxMs"`
	// N is how many there are.
	N int64 `json:"n"`
}

// summary is nil if nothing was timed.
func (t *timings) summary() *Latency {
	t.mu.Lock()
	n := int(min(t.n, uint64(len(t.ring))))
	sorted := slices.Clone(t.ring[:n])
	t.mu.Unlock()
	if n == 0 {
		return nil
	}
	slices.Sort(sorted)
	var sum time.Duration
	for _, d := range sorted {
		sum += min(d, math.MaxInt64/time.Duration(len(t.ring)))
	}
	rank := func(percent int) float64 {
		return millis(sorted[min(max((percent*n+99)/100-1, 0), n-1)])
	}
	return &Latency{AvgMs: millis(sum) / float64(n), P50Ms: rank(50), P99Ms: rank(99), MaxMs: millis(sorted[n-1]), N: int64(n)}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
