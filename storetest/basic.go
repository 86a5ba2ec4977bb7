package storetest

import (
	"math"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// counterCounts: 1 and 2 on one key, and another key apart from it.
func counterCounts(f *fixture) {
	for _, step := range []struct {
		key  string
		want int64
	}{{"a", 1}, {"a", 2}, {"b", 1}, {"a", 3}} {
		if d := f.apply(step.key, lasting, 1); d.Remaining != step.want || !d.Allowed {
			f.Errorf("the counter under %q answers %+v, want %d", step.key, d, step.want)
		}
	}
	if f.Peer == nil {
		return
	}
	if d, err := f.Peer.Apply(f.ctx, "a", lasting, 1); err != nil || d.Remaining != 4 {
		f.Errorf("the peer answers %+v, %v, want 4", d, err)
	}
	f.expect("a", 4, "after the peer's")
}

// missingIsZero: the record of a key that nobody has charged is the zero Record.
func missingIsZero(f *fixture) {
	for _, t := range f.transitions() {
		if rec := f.load("missing", t); !isZero(rec) {
			f.Errorf("the missing record of %s is %+v", t.Name(), rec)
		}
	}
}

// transitions are those that a store meets.
func (f *fixture) transitions() []throttlekit.Transition {
	f.Helper()
	all := []throttlekit.Transition{lasting, reader{}}
	for _, s := range strategies(10) {
		all = append(all, f.rule(s.strategy))
	}
	return all
}

// resetForgets: a reset key starts anew, in every kind of record, and no other key does.
func resetForgets(f *fixture) {
	f.apply("a", lasting, 5)
	f.apply("b", lasting, 7)
	f.reset("a")
	f.reset("never seen")
	if d := f.apply("a", lasting, 1); d.Remaining != 1 {
		f.Errorf("after Reset the counter answers %d, want 1", d.Remaining)
	}
	f.expect("b", 7, "after Reset of another key")
	for _, s := range strategies(10) {
		rule := f.rule(s.strategy)
		f.apply(s.name, rule, 4)
		f.reset(s.name)
		if rec := f.load(s.name, rule); !isZero(rec) {
			f.Errorf("after Reset the record of %s is %+v", s.name, rec)
		}
		if d := f.apply(s.name, rule, 10); !d.Allowed {
			f.Errorf("after Reset %s does not admit its limit: %+v", s.name, d)
		}
	}
}

// loadChangesNothing: Load shows what Apply left, at the store's time, any number of times.
func loadChangesNothing(f *fixture) {
	for _, s := range strategies(10) {
		rule := f.rule(s.strategy)
		d := f.apply(s.name, rule, 3)
		if !d.Allowed || d.Remaining != 7 {
			f.Errorf("%s answers %+v, want 7 of 10 left", s.name, d)
		}
		before := f.record(s.name, rule)
		rec, now, err := f.Store.Load(f.ctx, s.name, rule)
		if err != nil {
			f.Fatal(err)
		}
		if f.Clock != nil && now != f.Clock.NowMillis() {
			f.Errorf("Load says that it is %d, the clock %d", now, f.Clock.NowMillis())
		}
		if peek := rule.Peek(rec, now); peek.Remaining != 7 {
			f.Errorf("the loaded record of %s has %d left, want 7", s.name, peek.Remaining)
		}
		if after := f.record(s.name, rule); after != before {
			f.Errorf("Load changed the record of %s from %s to %s", s.name, before, after)
		}
		if d := f.apply(s.name, rule, 7); !d.Allowed {
			f.Errorf("after Load %s answers %+v to what is left", s.name, d)
		}
	}
}

// snapshotsAreValues: what a caller tries out on a loaded record does not reach the
// store, and what the store does later does not reach the record.
func snapshotsAreValues(f *fixture) {
	const pause = 301 * day // into the next sub-window
	for _, s := range strategies(20) {
		rule := f.rule(s.strategy)
		charge := func() {
			if f.Clock != nil {
				f.Clock.Advance(pause)
			}
			f.apply(s.name, rule, 1)
		}
		for range 5 {
			charge()
		}
		rec, now, err := f.Store.Load(f.ctx, s.name, rule)
		if err != nil {
			f.Fatal(err)
		}
		snapshot := f.encode(rule, rec)
		charge()
		before := f.record(s.name, rule)
		for i := range int64(3) {
			rule.Apply(rec, now+(i+2)*pause.Milliseconds(), 1)
		}
		if after := f.record(s.name, rule); after != before {
			f.Errorf("trying %s out on a loaded record changed the store's from %s to %s", s.name, before, after)
		}
		if got := f.encode(rule, rec); got != snapshot {
			f.Errorf("a loaded record of %s changed from %s to %s", s.name, snapshot, got)
		}
	}
}

// unpersistedLeavesNothing: a transition with a time to live of 0 reads, and that is all.
func unpersistedLeavesNothing(f *fixture) {
	f.expect("fresh", 0, "on a fresh key")
	if rec := f.load("fresh", reader{}); !isZero(rec) {
		f.Errorf("a transition that persists nothing left %+v", rec)
	}
	f.apply("a", lasting, 5)
	f.expect("a", 5, "at the first reading")
	f.expect("a", 5, "at the second reading")
	f.batch(throttlekit.CommitEach, throttlekit.Op{Key: "a", Transition: reader{}, Cost: 1})
	f.expect("a", 5, "after reading in a batch")
}

// expiryForgets: a record lives for its time to live, counted from the last charge, and not longer.
func expiryForgets(f *fixture) {
	f.needClock()
	if f.RealExpiry {
		f.Skip("the store's records expire in real time")
	}
	short := counter{ttl: 1000}
	for _, step := range []struct {
		after time.Duration
		want  int64
		why   string
	}{
		{0, 1, "on a fresh key"},
		{999 * time.Millisecond, 2, "one millisecond before the record expires"},
		{999 * time.Millisecond, 3, "since each charge begins a new time to live"},
		{1000 * time.Millisecond, 1, "when the time to live is over"},
		{1001 * time.Millisecond, 1, "after the time to live"},
	} {
		f.Clock.Advance(step.after)
		if d := f.apply("a", short, 1); d.Remaining != step.want {
			f.Errorf("the counter answers %d, want %d %s", d.Remaining, step.want, step.why)
		}
	}
	f.Clock.Advance(time.Second)
	f.expect("a", 0, "when read after the time to live")
	if rec := f.load("a", short); !isZero(rec) {
		f.Errorf("the expired record loads as %+v", rec)
	}
}

// hugeTTLsLast: a time to live beyond what a server can count in is a long one, not an error or none.
func hugeTTLsLast(f *fixture) {
	ttls := map[string]int64{
		"a year": 365 * day.Milliseconds(), "2^53": throttlekit.MaxSafe + 1, "1e17": 1e17, "the largest": math.MaxInt64,
	}
	for name, ttl := range ttls {
		f.apply(name, counter{ttl: ttl}, 1)
		if d := f.apply(name, counter{ttl: ttl}, 1); d.Remaining != 2 {
			f.Errorf("with a time to live of %s the counter answers %d, want 2", name, d.Remaining)
		}
	}
	if f.Clock == nil {
		return
	}
	f.Clock.Advance(364 * day)
	for name := range ttls {
		f.expect(name, 2, "after most of a year")
	}
}
