package throttlekit

import "time"

// Decision is the answer to one check. It is comparable, and the zero value is a denial.
//
// All counts are whole units and all times are epoch milliseconds. Values that
// binary64 arithmetic leaves fractional are truncated, and values beyond 2^53-1
// are reported as 2^53-1.
type Decision struct {
	// Allowed reports whether the request may go ahead. If it is false, nothing was charged.
	Allowed bool
	// Limit is the effective ceiling: the burst of a GCRA, the capacity of a bucket, the limit of a window.
	Limit int64
	// Remaining is how many whole units are left after this decision, never negative.
	Remaining int64
	// ResetAtMillis is when the limit is whole again, in epoch milliseconds.
	ResetAtMillis int64
	// RetryAfterMillis is how long to wait before the same request can succeed, in
	// milliseconds. It is 0 if and only if the request was allowed. A request that
	// costs more than the limit can never succeed, whatever this value says.
	RetryAfterMillis int64
}

// ResetAt is ResetAtMillis as a time.
func (d Decision) ResetAt() time.Time { return time.UnixMilli(d.ResetAtMillis) }

// RetryAfter is RetryAfterMillis as a duration, saturated at the longest duration.
func (d Decision) RetryAfter() time.Duration { return millisToDuration(d.RetryAfterMillis) }

// Forecast says what a key can spend and when it gets more, without spending anything.
type Forecast struct {
	// SpendableNow is how many requests of the asked cost would be admitted now.
	SpendableNow int64
	// NextReplenishAtMillis is when the next unit comes back, in epoch milliseconds.
	NextReplenishAtMillis int64
	// FullAtMillis is when the limit is whole again, in epoch milliseconds.
	FullAtMillis int64
}

// NextReplenishAt is NextReplenishAtMillis as a time.
func (f Forecast) NextReplenishAt() time.Time { return time.UnixMilli(f.NextReplenishAtMillis) }

// FullAt is FullAtMillis as a time.
func (f Forecast) FullAt() time.Time { return time.UnixMilli(f.FullAtMillis) }
