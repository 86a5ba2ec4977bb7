package concurrency

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/internal/monotonic"
)

// Algorithm is how a [Guard] moves its limit.
type Algorithm string

const (
	// Gradient2 moves the limit by the ratio of the latency without load to the latest one,
	// and lets a queue of the limit's square root stand. It ignores latencies while less than
	// half of the limit is in use.
	Gradient2 Algorithm = "gradient2"
	// AIMD adds 1 to the limit for a good latency and multiplies it by BackoffRatio for a bad
	// one or a drop. Source: D.-M. Chiu, R. Jain, Analysis of the increase and decrease
	// algorithms for congestion avoidance (1989).
	AIMD Algorithm = "aimd"
)

// Config describes a [Guard]. Zero values mean the defaults.
type Config struct {
	// MinLimit and MaxLimit bound the limit, from 1 to 1,000,000. They default to 4 and 512.
	MinLimit, MaxLimit int
	// InitialLimit is the first limit, within the bounds. Defaults to MinLimit.
	InitialLimit int
	// Algorithm defaults to Gradient2.
	Algorithm Algorithm
	// RTTWindow is after how many requests that had hardly any company the latency without load
	// is forgotten, from 1 to 1,000,000. Defaults to 100.
	RTTWindow int
	// Smoothing is how much of a step Gradient2 takes, above 0 and at most 1. Defaults to 0.2.
	Smoothing float64
	// Tolerance is how many times the latency without load a request may take, at least 1.
	// Defaults to 2.
	Tolerance float64
	// BackoffRatio is by what AIMD multiplies, from 0.5 to below 1. Defaults to 0.9.
	BackoffRatio float64
	// Recalibration measures the latency without load anew from time to time. Nil, the default,
	// never holds requests back for that.
	Recalibration *Recalibration
	// Queue is how many callers may wait for a permit in each priority, from 0 to 1,000,000.
	// Zero, the default, refuses at once.
	Queue int
	// Elapsed is a monotonic clock. Defaults to the process's.
	Elapsed func() time.Duration
}

// Recalibration says when and how a [Guard] measures the latency without load: it lets no more than
// a few requests run until some of them have ended. A guard that is never idle learns in no other
// way that its backend has become slower for good. Zero values mean the defaults.
//
// A measurement that has no result after a tenth of Interval is given up when the next request comes
// or ends, so that requests that do not end cannot hold others back for long.
type Recalibration struct {
	// Interval is the time from the end of one measurement to the beginning of the next;
	// positive. Defaults to one minute.
	Interval time.Duration
	// ProbeLimit is how many requests may be in flight during a measurement, from 1 to
	// MaxLimit. Defaults to MinLimit.
	ProbeLimit int
	// ProbeSamples is how many requests are measured, from 1 to 1,000,000. Defaults to 5.
	ProbeSamples int
}

// most bounds what is kept in memory for one guard.
const most = 1_000_000

// complete fills the defaults in and refuses what breaks a rule, all fields at once.
func (c Config) complete() (Config, error) {
	given := c
	orElse(&c.MinLimit, 4)
	orElse(&c.MaxLimit, 512)
	orElse(&c.InitialLimit, c.MinLimit)
	orElse(&c.Algorithm, Gradient2)
	orElse(&c.RTTWindow, 100)
	orElse(&c.Smoothing, 0.2)
	orElse(&c.Tolerance, 2)
	orElse(&c.BackoffRatio, 0.9)
	var wrong []error
	require := func(ok bool, field string, value any, rule string) {
		if !ok {
			wrong = append(wrong, &throttlekit.InvalidError{Field: field, Value: value, Rule: rule})
		}
	}
	atLeast := func(least int, field string, value int) {
		require(value >= least && value <= most, field, value, span(strconv.Itoa(least), strconv.Itoa(most)))
	}
	atLeast(1, "minLimit", c.MinLimit)
	least, greatest := origin("minLimit", given.MinLimit, max(1, c.MinLimit)), strconv.Itoa(most)
	require(c.MaxLimit >= max(1, c.MinLimit) && c.MaxLimit <= most, "maxLimit", c.MaxLimit, span(least, greatest))
	from, to := 1, most // what is judged by bounds that are wrong themselves may break these only
	if len(wrong) == 0 {
		from, to, greatest = c.MinLimit, c.MaxLimit, origin("maxLimit", given.MaxLimit, c.MaxLimit)
	} else {
		least, c.InitialLimit = "1", cmp.Or(given.InitialLimit, 1)
	}
	require(c.InitialLimit >= from && c.InitialLimit <= to, "initialLimit", c.InitialLimit, span(least, greatest))
	require(c.Algorithm == Gradient2 || c.Algorithm == AIMD, "algorithm", string(c.Algorithm), "must be gradient2 or aimd")
	atLeast(1, "rttWindow", c.RTTWindow)
	require(c.Smoothing > 0 && c.Smoothing <= 1, "smoothing", c.Smoothing, "must be above 0 and at most 1")
	require(c.Tolerance >= 1 && c.Tolerance <= throttlekit.MaxSafe, "tolerance", c.Tolerance, "must be a finite number >= 1")
	require(c.BackoffRatio >= 0.5 && c.BackoffRatio < 1, "backoffRatio", c.BackoffRatio, "must be at least 0.5 and below 1")
	atLeast(0, "queue", c.Queue)
	if c.Recalibration != nil {
		r := *c.Recalibration
		orElse(&r.Interval, time.Minute)
		orElse(&r.ProbeLimit, c.MinLimit)
		orElse(&r.ProbeSamples, 5)
		require(r.Interval > 0, "recalibration.interval", r.Interval, "must be a positive duration")
		require(r.ProbeLimit >= 1 && r.ProbeLimit <= to, "recalibration.probeLimit", r.ProbeLimit, span("1", greatest))
		atLeast(1, "recalibration.probeSamples", r.ProbeSamples)
		c.Recalibration = &r
	}
	if c.Elapsed == nil {
		c.Elapsed = monotonic.Elapsed
	}
	return c, errors.Join(wrong...)
}

// span is the rule about an integer between two bounds.
func span(least, greatest string) string {
	return "must be an integer from " + least + " to " + greatest
}

// origin is a bound that another field sets, and says so if that field was left at its default.
func origin(field string, given, value int) string {
	if given != 0 {
		return strconv.Itoa(value)
	}
	return fmt.Sprintf("%d (the default of %s)", value, field)
}

func orElse[T comparable](value *T, standard T) {
	var zero T
	if *value == zero {
		*value = standard
	}
}

// probeLimit is up to how many requests in flight the backend counts as without load.
func (c Config) probeLimit() int {
	if c.Recalibration != nil {
		return c.Recalibration.ProbeLimit
	}
	return c.MinLimit
}
