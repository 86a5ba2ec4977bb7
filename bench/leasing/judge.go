package main

import (
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// judge compares the admissions, which are in order, with the limit by means that share
// nothing with the transitions: it counts them. over is the worst excess in units; it is
// negative if the limit was never reached.
func (w *world) judge() (over float64) {
	switch s := w.mode.limit.(type) {
	case throttlekit.FixedWindow:
		return w.judgeWindows(s)
	case throttlekit.TokenBucket:
		return w.judgeBucket(s)
	case throttlekit.SlidingWindowLog:
		return w.judgeLog(s)
	}
	return 0
}

// judgeWindows counts by windows of the store's clock.
func (w *world) judgeWindows(s throttlekit.FixedWindow) float64 {
	counts, most := map[int64]int{}, 0
	for _, at := range w.admitted {
		i := w.storeMillis(at) / s.Window.Milliseconds()
		counts[i]++
		most = max(most, counts[i])
	}
	return float64(most) - s.Limit
}

// judgeBucket keeps a level that rises by one for each admission and leaks at the rate. It
// exceeds the capacity exactly if some interval admitted more than capacity + rate·length.
func (w *world) judgeBucket(s throttlekit.TokenBucket) float64 {
	level, last, most := 0.0, time.Duration(0), 0.0
	for _, at := range w.admitted {
		level = max(0, level-s.RefillPerSec*(at-last).Seconds()) + 1
		last, most = at, max(most, level)
	}
	const rounding = 1e-6 // of a level that was added up from many intervals
	return most - s.Capacity - rounding
}

// judgeLog counts in the window that ends with each admission.
func (w *world) judgeLog(s throttlekit.SlidingWindowLog) float64 {
	oldest, most := 0, 0
	for i, at := range w.admitted {
		for w.admitted[oldest] <= at-s.Window {
			oldest++
		}
		most = max(most, i-oldest+1)
	}
	return float64(most) - s.Limit
}
