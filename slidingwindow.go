package throttlekit

import (
	"errors"
	"math"
	"sort"
	"time"
)

// SlidingWindow approximates a rolling window by Buckets sub-windows and a weighted
// share of the oldest one. It smooths the edge burst of a [FixedWindow] with a bounded
// record. Specification: §2.4. Beyond it, sub-windows only roll forward: a clock that
// steps back stays in the newest sub-window that the record has reached.
type SlidingWindow struct {
	// Limit is how many units one window admits; positive.
	Limit float64
	// Window is the width of the rolling window; positive.
	Window time.Duration
	// Buckets is how many sub-windows divide it, 1 to 100000. More of them follow the
	// true rolling count more closely and cost memory. Zero means 10.
	Buckets int
}

const (
	defaultBuckets = 10
	maxBuckets     = 100_000
)

// slidingWindow keeps the newest sub-window's number in a record's A and its count in
// B. Extra is a trail[subWindow] of the older ones that still matter, in ascending order.
type slidingWindow struct {
	name     string
	strategy Strategy
	spec     SlidingWindow
	window   float64 // W, milliseconds
	width    float64 // w, milliseconds of a sub-window
	ttl      int64
	limit    int64
}

type subWindow struct{ tick, count float64 }

// Rule implements [Strategy].
func (s SlidingWindow) Rule() (Rule, error) { return s.rule("slidingWindow", "window") }

func (s SlidingWindow) rule(name, windowField string) (*slidingWindow, error) {
	if s.Buckets == 0 {
		s.Buckets = defaultBuckets
	}
	var c checks
	c.positive("limit", s.Limit)
	c.duration(windowField, s.Window)
	c.require(s.Buckets >= 1 && s.Buckets <= maxBuckets, "buckets", s.Buckets, "must be an integer from 1 to 100000")
	if len(c) > 0 {
		return nil, c.err()
	}
	window := toMillis(s.Window)
	width := window / float64(s.Buckets)
	return &slidingWindow{
		name: name, strategy: s, spec: s,
		window: window, width: width, ttl: max(1, ceil(window+width)), limit: whole(s.Limit),
	}, nil
}

func (s *slidingWindow) Name() string       { return s.name }
func (s *slidingWindow) Strategy() Strategy { return s.strategy }
func (s *slidingWindow) Limit() int64       { return s.limit }

// view is what a record means at one instant.
type view struct {
	tick     float64          // current sub-window
	count    float64          // units in it
	older    trail[subWindow] // the record's older sub-windows that still matter
	rolled   bool             // the record's newest sub-window is no longer the current one
	estimate float64          // units in the rolling window
	partly   float64          // units of the oldest sub-window, which count in part
	weight   float64          // the part of them that counts
	next     float64          // when the next sub-window begins
	resetAt  int64
}

func (s *slidingWindow) look(rec Record, now float64) view {
	v := view{tick: math.Floor(now / s.width)}
	if rec.A >= v.tick {
		v.tick, v.count = rec.A, rec.B
	}
	v.rolled = rec.B > 0 && rec.A < v.tick
	v.older, _ = rec.Extra.(trail[subWindow])
	oldest := v.tick - float64(s.spec.Buckets)
	for len(v.older.items) > 0 && v.older.items[0].tick < oldest {
		v.older = v.older.skip(1)
	}
	full := 0.0
	add := func(o subWindow) {
		switch {
		case o.tick == oldest:
			v.partly = o.count
		case o.tick > oldest:
			full += o.count
		}
	}
	for _, o := range v.older.items {
		add(o)
	}
	if v.rolled {
		add(subWindow{rec.A, rec.B})
	}
	full += v.count
	elapsed := max(0, now-float64(v.tick*s.width))
	v.weight = min(1, max(0, (s.width-elapsed)/s.width))
	v.estimate = full + float64(v.partly*v.weight)
	v.next = float64((v.tick + 1) * s.width)
	v.resetAt = ceil(v.next + s.window)
	return v
}

// deny answers a cost that brings the projection beyond the limit.
func (s *slidingWindow) deny(v view, now, projection float64) Decision {
	over := projection - s.spec.Limit
	wait := ceil(v.next - now)
	if v.partly > 0 && over <= float64(v.partly*v.weight) {
		wait = ceil(float64(over*s.width) / v.partly)
	}
	return deny(s.limit, floor0(s.spec.Limit-v.estimate), v.resetAt, wait)
}

func (s *slidingWindow) Apply(rec Record, nowMillis int64, cost float64) (Record, Decision, int64) {
	now := float64(nowMillis)
	v := s.look(rec, now)
	projection := v.estimate + cost
	if projection > s.spec.Limit {
		return rec, s.deny(v, now, projection), 0
	}
	next := Record{A: v.tick, B: v.count + cost, Extra: rec.Extra}
	if v.rolled {
		next.Extra = v.older.push(subWindow{rec.A, rec.B})
	}
	behind := max(0, ceil(float64(v.tick*s.width)-now)) // by a clock that stepped back
	return next, allow(s.limit, floor0(s.spec.Limit-projection), v.resetAt), s.ttl + behind
}

func (s *slidingWindow) Peek(rec Record, nowMillis int64) Decision {
	now := float64(nowMillis)
	v := s.look(rec, now)
	if v.estimate+1 > s.spec.Limit {
		return s.deny(v, now, v.estimate+1)
	}
	return allow(s.limit, floor0(s.spec.Limit-v.estimate), v.resetAt)
}

func (s *slidingWindow) Forecast(rec Record, nowMillis int64, cost float64) Forecast {
	v := s.look(rec, float64(nowMillis))
	return Forecast{
		SpendableNow:          floor(max(0, math.Floor(s.spec.Limit-v.estimate)) / cost),
		NextReplenishAtMillis: ceil(v.next),
		FullAtMillis:          v.resetAt,
	}
}

// slidingText is a ring of Buckets+1 slots: slot p holds the number and the count of
// the sub-window that owns it, or -1 and 0.
type slidingText struct {
	Ticks  []number `json:"i"`
	Counts []number `json:"n"`
}

func (s *slidingWindow) Encode(rec Record) ([]byte, error) {
	size := s.spec.Buckets + 1
	text := slidingText{Ticks: make([]number, size), Counts: make([]number, size)}
	for p := range text.Ticks {
		text.Ticks[p] = -1
	}
	put := func(o subWindow) {
		if o.tick < 0 {
			return // a sub-window before the epoch is never read
		}
		p := int(math.Mod(o.tick, float64(size)))
		text.Ticks[p], text.Counts[p] = number(o.tick), number(o.count)
	}
	older, _ := rec.Extra.(trail[subWindow])
	for _, o := range older.items {
		put(o)
	}
	put(subWindow{rec.A, rec.B})
	return encode(text)
}

func (s *slidingWindow) Decode(text []byte) (Record, error) {
	var t slidingText
	if err := unmarshal(s.name, text, &t); err != nil {
		return Record{}, err
	}
	if len(t.Ticks) != s.spec.Buckets+1 || len(t.Counts) != len(t.Ticks) {
		return Record{}, corrupt(s.name, errors.New("its ring does not have buckets + 1 slots"))
	}
	var all []subWindow
	for p, tick := range t.Ticks {
		if tick >= 0 {
			all = append(all, subWindow{float64(tick), float64(t.Counts[p])})
		}
	}
	if len(all) == 0 {
		return Record{}, nil
	}
	sort.Slice(all, func(i, j int) bool { return all[i].tick < all[j].tick })
	newest := all[len(all)-1]
	return Record{A: newest.tick, B: newest.count, Extra: newTrail(all[:len(all)-1])}, nil
}
