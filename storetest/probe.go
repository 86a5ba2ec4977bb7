package storetest

import (
	"encoding/json"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// counter is a transition that no store has a faster form of. It adds the cost to a
// number and answers with the sum as what remains, and with the time as the reset.
type counter struct{ ttl int64 }

func (counter) Name() string { return "storetest.counter" }

func (c counter) Apply(rec throttlekit.Record, nowMillis int64, cost float64) (throttlekit.Record, throttlekit.Decision, int64) {
	rec.A += cost
	return rec, throttlekit.Decision{Allowed: true, Remaining: int64(rec.A), ResetAtMillis: nowMillis}, c.ttl
}

func (counter) Encode(rec throttlekit.Record) ([]byte, error) { return json.Marshal(rec.A) }

func (counter) Decode(text []byte) (rec throttlekit.Record, err error) {
	err = json.Unmarshal(text, &rec.A)
	return rec, err
}

// reader answers with what a counter stands at and persists nothing, although it
// returns a record that it has changed.
type reader struct{ counter }

func (reader) Name() string { return "storetest.reader" }

func (reader) Apply(rec throttlekit.Record, nowMillis int64, _ float64) (throttlekit.Record, throttlekit.Decision, int64) {
	d := throttlekit.Decision{Allowed: true, Remaining: int64(rec.A), ResetAtMillis: nowMillis}
	return throttlekit.Record{A: rec.A + 1000}, d, 0
}

// lasting is a counter that outlives every case.
var lasting = counter{ttl: time.Hour.Milliseconds()}

// named is a strategy with a name for its cases.
type named struct {
	name     string
	strategy throttlekit.Strategy
}

const day = 24 * time.Hour

// strategies are all strategies with a limit, so slow to refill that no unit comes back
// while a case runs on the wall clock. A key admits exactly limit units.
func strategies(limit float64) []named {
	const long = 3000 * day
	return []named{
		{"gcra", throttlekit.GCRA{Limit: limit, Period: time.Duration(limit) * day}},
		{"tokenBucket", throttlekit.TokenBucket{Capacity: limit, RefillPerSec: 1.0 / 4096}},
		{"fixedWindow", throttlekit.FixedWindow{Limit: limit, Window: long}},
		{"slidingWindow", throttlekit.SlidingWindow{Limit: limit, Window: long}},
		{"slidingWindowLog", throttlekit.SlidingWindowLog{Limit: limit, Window: long}},
		{"quotaFixed", throttlekit.Quota{Limit: limit, Cadence: throttlekit.Fixed, Period: long}},
		{"quotaRolling", throttlekit.Quota{Limit: limit, Cadence: throttlekit.Rolling, Period: long, Buckets: 4}},
	}
}

// strategy is one of strategies.
func strategy(name string, limit float64) throttlekit.Strategy {
	for _, s := range strategies(limit) {
		if s.name == name {
			return s.strategy
		}
	}
	return nil
}

// quick are the same strategies, refilled within a second or so and with intervals that
// binary64 holds exactly, so that a record which has expired and one that is still kept
// lead to the same decisions.
func quick(name string) throttlekit.Strategy {
	return map[string]throttlekit.Strategy{
		"gcra":             throttlekit.GCRA{Limit: 8, Period: time.Second, Burst: 6},
		"tokenBucket":      throttlekit.TokenBucket{Capacity: 8, RefillPerSec: 15.625}, // a 64th per millisecond
		"fixedWindow":      throttlekit.FixedWindow{Limit: 9, Window: 500 * time.Millisecond},
		"slidingWindow":    throttlekit.SlidingWindow{Limit: 12, Window: 1024 * time.Millisecond, Buckets: 4},
		"slidingWindowLog": throttlekit.SlidingWindowLog{Limit: 9, Window: 700 * time.Millisecond},
		"quotaFixed":       throttlekit.Quota{Limit: 9, Cadence: throttlekit.Fixed, Period: 600 * time.Millisecond, Anchor: 77},
		"quotaRolling":     throttlekit.Quota{Limit: 11, Cadence: throttlekit.Rolling, Period: 512 * time.Millisecond, Buckets: 2},
	}[name]
}
