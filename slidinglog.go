package throttlekit

import (
	"math"
	"time"
)

// SlidingWindowLog remembers when each unit was spent and admits exactly Limit units
// in any window of the given width. It is exact and costs memory in proportion to the
// requests admitted in one window. A fractional cost is charged as the next whole
// number. Specification: §2.5. Beyond it, a clock that steps back logs the newest time
// it has seen.
type SlidingWindowLog struct {
	// Limit is how many units any window admits; positive.
	Limit float64
	// Window is the width of the window; positive.
	Window time.Duration
}

// slidingLog keeps the units of all runs in a record's A. Extra is a trail[run] in ascending order.
type slidingLog struct {
	spec   SlidingWindowLog
	window float64
	ttl    int64
	limit  int64
}

// run is a number of units spent at one time.
type run struct{ at, units float64 }

// Rule implements [Strategy].
func (s SlidingWindowLog) Rule() (Rule, error) {
	var c checks
	c.positive("limit", s.Limit)
	c.duration("window", s.Window)
	if len(c) > 0 {
		return nil, c.err()
	}
	window := toMillis(s.Window)
	return &slidingLog{spec: s, window: window, ttl: max(1, ceil(window)), limit: whole(s.Limit)}, nil
}

func (l *slidingLog) Name() string       { return "slidingWindowLog" }
func (l *slidingLog) Strategy() Strategy { return l.spec }
func (l *slidingLog) Limit() int64       { return l.limit }

// live is what of the log still counts at now, and how many units that is.
func (l *slidingLog) live(rec Record, now float64) (log trail[run], units float64) {
	log, _ = rec.Extra.(trail[run])
	units = rec.A
	expired := 0
	for expired < len(log.items) && log.items[expired].at <= now-l.window {
		units -= log.items[expired].units
		expired++
	}
	return log.skip(expired), units
}

// deny answers units that do not fit.
func (l *slidingLog) deny(runs []run, count, units, now float64) Decision {
	remaining := whole(max(0, l.spec.Limit-count))
	if len(runs) == 0 {
		return deny(l.limit, remaining, ceil(now+l.window), whole(l.window))
	}
	// The request fits when the k oldest units have left the window.
	k := min(count, max(1, count+units-l.spec.Limit))
	at, seen := runs[0].at, runs[0].units
	for _, r := range runs[1:] {
		if seen >= k {
			break
		}
		at, seen = r.at, seen+r.units
	}
	return deny(l.limit, remaining, ceil(runs[0].at+l.window), ceil(at+l.window-now))
}

func (l *slidingLog) Apply(rec Record, nowMillis int64, cost float64) (Record, Decision, int64) {
	now, units := float64(nowMillis), math.Ceil(cost)
	log, count := l.live(rec, now)
	if count+units > l.spec.Limit {
		return rec, l.deny(log.items, count, units, now), 0
	}
	at := now
	if n := len(log.items); n > 0 {
		at = max(at, log.items[n-1].at)
	}
	log = log.push(run{at, units})
	count += units
	behind := ceil(at - now) // by a clock that stepped back
	return Record{A: count, Extra: log},
		allow(l.limit, whole(max(0, l.spec.Limit-count)), ceil(log.items[0].at+l.window)), l.ttl + behind
}

func (l *slidingLog) Peek(rec Record, nowMillis int64) Decision {
	now := float64(nowMillis)
	log, count := l.live(rec, now)
	if count+1 > l.spec.Limit {
		return l.deny(log.items, count, 1, now)
	}
	oldest := now
	if len(log.items) > 0 {
		oldest = log.items[0].at
	}
	return allow(l.limit, whole(max(0, l.spec.Limit-count)), ceil(oldest+l.window))
}

func (l *slidingLog) Forecast(rec Record, nowMillis int64, cost float64) Forecast {
	log, count := l.live(rec, float64(nowMillis))
	f := Forecast{
		SpendableNow:          floor(max(0, l.spec.Limit-count) / cost),
		NextReplenishAtMillis: nowMillis, FullAtMillis: nowMillis,
	}
	if n := len(log.items); n > 0 {
		f.NextReplenishAtMillis = ceil(log.items[0].at + l.window)
		f.FullAtMillis = ceil(log.items[n-1].at + l.window)
	}
	return f
}

// maxStamps bounds the text of a log; see Encode.
const maxStamps = 1 << 20

// Encode writes one stamp per unit, so it refuses a log of more than a million units.
func (l *slidingLog) Encode(rec Record) ([]byte, error) {
	if rec.A > maxStamps {
		return nil, &InvalidError{Field: "limit", Value: rec.A, Rule: "must leave at most 1048576 units in a log that is kept as text"}
	}
	log, _ := rec.Extra.(trail[run])
	stamps := make([]number, 0, int(rec.A))
	for _, r := range log.items {
		for range int(r.units) {
			stamps = append(stamps, number(r.at))
		}
	}
	return encode(stamps)
}

func (l *slidingLog) Decode(text []byte) (Record, error) {
	var stamps []number
	if err := unmarshal(l.Name(), text, &stamps); err != nil {
		return Record{}, err
	}
	if stamps == nil {
		return Record{}, corrupt(l.Name(), errMissing)
	}
	if len(stamps) == 0 {
		return Record{}, nil
	}
	var runs []run
	for _, at := range stamps {
		if n := len(runs); n > 0 && runs[n-1].at >= float64(at) {
			runs[n-1].units++
		} else {
			runs = append(runs, run{float64(at), 1})
		}
	}
	return Record{A: float64(len(stamps)), Extra: newTrail(runs)}, nil
}
