package vectors

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// Strategy is a strategy as a document spells it.
type Strategy struct {
	// Kind is "gcra", "tokenBucket", "fixedWindow", "slidingWindow", "slidingWindowLog" or "quota".
	Kind string
	// Options are the kind's options. Periods and windows are in milliseconds,
	// fractions allowed down to a nanosecond.
	Options Options
}

// Options are named values, each a float64 or a string.
type Options map[string]any

// kinds knows the strategies. Its options stand in the order in which documents write
// them; required says how many of them, from the front, must be given.
var kinds = map[string]struct {
	options  []string
	required int
	build    func(*reader) throttlekit.Strategy
}{
	"gcra":             {[]string{"limit", "periodMs", "burst"}, 2, buildGCRA},
	"tokenBucket":      {[]string{"capacity", "refillPerSec"}, 2, buildTokenBucket},
	"fixedWindow":      {[]string{"limit", "windowMs"}, 2, buildFixedWindow},
	"slidingWindow":    {[]string{"limit", "windowMs", "buckets"}, 2, buildSlidingWindow},
	"slidingWindowLog": {[]string{"limit", "windowMs"}, 2, buildSlidingWindowLog},
	"quota": {
		[]string{"limit", "resetCadence", "periodMs", "anchor", "offsetMinutes", "weekStartsOn", "buckets"}, 2, buildQuota,
	},
}

// Kinds are the kinds of strategy that [Strategy.Build] knows, in alphabetical order.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// Build returns the strategy, validated. The options are:
//
//   - gcra: limit, periodMs; burst, by default the limit
//   - tokenBucket: capacity, refillPerSec
//   - fixedWindow, slidingWindowLog: limit, windowMs
//   - slidingWindow: limit, windowMs; buckets, by default 10
//   - quota: limit, resetCadence, which is one of [throttlekit.Cadences]; periodMs, for fixed and
//     rolling; anchor in epoch milliseconds, for fixed, by default 0; offsetMinutes from UTC, by
//     default 0; weekStartsOn, from 0 for Sunday to 6 for Saturday, by default 1; buckets, for
//     rolling, by default 10
//
// An unknown kind is an error that matches [throttlekit.ErrUnsupported], so that a
// replay skips it. A missing, unknown or wrong option is one that matches
// [throttlekit.ErrInvalid].
func (s Strategy) Build() (throttlekit.Strategy, error) {
	kind, ok := kinds[s.Kind]
	if !ok {
		return nil, fmt.Errorf("%w: strategy kind %q is unknown here", throttlekit.ErrUnsupported, s.Kind)
	}
	for _, name := range s.names() {
		if !slices.Contains(kind.options, name) {
			return nil, invalid("options."+name, s.Options[name], "must be an option of "+s.Kind)
		}
	}
	r := &reader{options: s.Options}
	for _, name := range kind.options[:kind.required] {
		r.require(s.Options[name] != nil, name, "nothing", "must be given")
	}
	strategy := kind.build(r)
	if r.err != nil {
		return nil, r.err
	}
	if _, err := strategy.Rule(); err != nil {
		return nil, err
	}
	return strategy, nil
}

func (s Strategy) validate(path string) error {
	if s.Kind == "" {
		return invalid(path+"kind", s.Kind, "must not be empty")
	}
	for _, name := range s.names() {
		switch v := s.Options[name].(type) {
		case string:
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return invalid(path+"options."+name, v, "must be a finite number")
			}
		default:
			return invalid(path+"options."+name, v, "must be a number or a text")
		}
	}
	return nil
}

// names are the options that are given: those of the contract in its order, then the rest alphabetically.
func (s Strategy) names() []string {
	var names []string
	for _, name := range kinds[s.Kind].options {
		if _, ok := s.Options[name]; ok {
			names = append(names, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Options)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// reader takes typed values out of options and keeps the first thing that is wrong.
type reader struct {
	options Options
	err     error
}

func (r *reader) require(ok bool, name string, value any, rule string) {
	if !ok && r.err == nil {
		r.err = invalid("options."+name, value, rule)
	}
}

func (r *reader) given(name string) bool {
	_, ok := r.options[name]
	return ok
}

// number is a numeric option, and 0 if it is not given.
func (r *reader) number(name string) float64 {
	v, given := r.options[name]
	if !given {
		return 0
	}
	x, ok := v.(float64)
	r.require(ok, name, v, "must be a number")
	return x
}

// positive is a numeric option that the core would read as "not given" if it were 0.
func (r *reader) positive(name string) float64 {
	x := r.number(name)
	r.require(x != 0 || !r.given(name), name, x, "must not be 0")
	return x
}

// integer is an option that is a whole number between least and most, or fallback if it is not given.
func (r *reader) integer(name string, fallback, least, most int64) int64 {
	if !r.given(name) {
		return fallback
	}
	x := r.number(name)
	ok := x >= float64(least) && x <= float64(most) && x == math.Trunc(x)
	r.require(ok, name, x, fmt.Sprintf("must be an integer from %d to %d", least, most))
	if !ok {
		return fallback
	}
	return int64(x)
}

// duration is an option in milliseconds, and 0 if it is not given. It refuses a value
// that a time.Duration cannot carry exactly, since the core would decide by another one.
func (r *reader) duration(name string) time.Duration {
	const most = math.MaxInt64 / int64(time.Millisecond)
	ms := r.number(name)
	inRange := math.Abs(ms) <= float64(most)
	if inRange && ms == math.Trunc(ms) {
		return time.Duration(ms) * time.Millisecond
	}
	nanos := math.RoundToEven(ms * float64(time.Millisecond))
	ok := inRange && nanos/float64(time.Millisecond) == ms
	r.require(ok, name, ms, "must be a whole number of nanoseconds, below 292 years")
	if !ok {
		return 0
	}
	return time.Duration(nanos)
}

func buildGCRA(r *reader) throttlekit.Strategy {
	return throttlekit.GCRA{Limit: r.number("limit"), Period: r.duration("periodMs"), Burst: r.positive("burst")}
}

func buildTokenBucket(r *reader) throttlekit.Strategy {
	return throttlekit.TokenBucket{Capacity: r.number("capacity"), RefillPerSec: r.number("refillPerSec")}
}

func buildFixedWindow(r *reader) throttlekit.Strategy {
	return throttlekit.FixedWindow{Limit: r.number("limit"), Window: r.duration("windowMs")}
}

func buildSlidingWindow(r *reader) throttlekit.Strategy {
	return throttlekit.SlidingWindow{Limit: r.number("limit"), Window: r.duration("windowMs"), Buckets: r.buckets()}
}

func buildSlidingWindowLog(r *reader) throttlekit.Strategy {
	return throttlekit.SlidingWindowLog{Limit: r.number("limit"), Window: r.duration("windowMs")}
}

func buildQuota(r *reader) throttlekit.Strategy {
	cadence, ok := r.options["resetCadence"].(string)
	r.require(ok, "resetCadence", r.options["resetCadence"], "must be a text")
	const sunday = 7 // the core counts weekdays as ISO does, from 1 for Monday
	weekStart := int(r.integer("weekStartsOn", 1, 0, 6))
	if weekStart == 0 {
		weekStart = sunday
	}
	return throttlekit.Quota{
		Limit:     r.number("limit"),
		Cadence:   throttlekit.Cadence(cadence),
		Period:    r.duration("periodMs"),
		Anchor:    r.integer("anchor", 0, -throttlekit.MaxSafe, throttlekit.MaxSafe),
		Offset:    time.Duration(r.integer("offsetMinutes", 0, -840, 840)) * time.Minute,
		WeekStart: weekStart,
		Buckets:   r.buckets(),
	}
}

// buckets is the number of sub-windows; 0 lets the core take its default.
func (r *reader) buckets() int { return int(r.integer("buckets", 0, 1, 100_000)) }
