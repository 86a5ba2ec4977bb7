package throttlekit

import (
	"math"
	"time"
)

// MaxSafe is the largest integer that binary64 counts exactly, 2^53-1. It bounds
// costs and saturates the fields of a Decision.
const MaxSafe = 1<<53 - 1

const maxDurationMillis = int64(math.MaxInt64 / time.Millisecond)

// whole truncates x toward zero, as Redis does with a script's reply, and saturates at ±MaxSafe.
func whole(x float64) int64 {
	switch {
	case x >= MaxSafe:
		return MaxSafe
	case x <= -MaxSafe:
		return -MaxSafe
	}
	return int64(x)
}

// floor is whole(⌊x⌋) without the detour over a rounded float.
func floor(x float64) int64 {
	n := whole(x)
	if float64(n) > x && n > -MaxSafe {
		n--
	}
	return n
}

// ceil is whole(⌈x⌉) without the detour over a rounded float.
func ceil(x float64) int64 {
	n := whole(x)
	if float64(n) < x && n < MaxSafe {
		n++
	}
	return n
}

// floor0 is ⌊x⌋, but not below 0.
func floor0(x float64) int64 { return max(0, floor(x)) }

// toMillis is the binary64 number of milliseconds nearest to d.
func toMillis(d time.Duration) float64 {
	if d%time.Millisecond == 0 {
		return float64(d / time.Millisecond) // exact also where d in nanoseconds is not
	}
	return float64(d) / float64(time.Millisecond)
}

func millisToDuration(ms int64) time.Duration {
	if ms > maxDurationMillis {
		return math.MaxInt64
	}
	return time.Duration(ms) * time.Millisecond
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
