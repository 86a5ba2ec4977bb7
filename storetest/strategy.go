package storetest

import (
	"fmt"
	"math/rand/v2"

	throttlekit "github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/vectors"
)

// denialLeavesNoTrace: a denied check persists nothing, on a fresh key and on a used one.
func denialLeavesNoTrace(name string) func(*fixture) {
	return func(f *fixture) {
		rule := f.rule(strategy(name, 5))
		if d := f.apply("fresh", rule, 6); d.Allowed || d.RetryAfterMillis < 1 {
			f.Errorf("6 of 5 units: %+v", d)
		}
		if rec := f.load("fresh", rule); !isZero(rec) {
			f.Errorf("a denial on a fresh key left %+v", rec)
		}
		f.apply("used", rule, 3)
		before := f.record("used", rule)
		for _, cost := range []float64{3, 6, 1000} {
			if d := f.apply("used", rule, cost); d.Allowed || d.Remaining != 2 || d.RetryAfterMillis < 1 {
				f.Errorf("%g units with 2 left: %+v", cost, d)
			}
		}
		if after := f.record("used", rule); after != before {
			f.Errorf("denials changed the record from %s to %s", before, after)
		}
		if d := f.apply("used", rule, 2); !d.Allowed || d.Remaining != 0 {
			f.Errorf("after denials the 2 units left are answered with %+v", d)
		}
	}
}

// step is a check at a time.
type step struct {
	now  int64
	cost float64
}

// model is a rule on one record in memory, against which stores are measured.
type model struct {
	rule    throttlekit.Rule
	rec     throttlekit.Record
	expires int64
	latest  int64 // the latest time there was
}

func (m *model) apply(s step) throttlekit.Decision {
	m.latest = max(m.latest, s.now)
	next, d, ttl := m.rule.Apply(m.rec, s.now, s.cost)
	if ttl > 0 {
		m.rec, m.expires = next, s.now+ttl
	}
	return d
}

// walk chooses the next check. Time mostly goes on by up to a third of a second, and
// sometimes goes back, but not while the record may have been dropped already.
func (m *model) walk(r *rand.Rand, now int64) step {
	switch n := r.IntN(12); {
	case n < 5:
		now += r.Int64N(40)
	case n < 9:
		now += r.Int64N(300)
	case n == 9:
		now += r.Int64N(3000)
	case n == 10 && m.latest < m.expires:
		now -= r.Int64N(1500)
	}
	return step{now, float64(1 + r.IntN(1+r.IntN(10)))}
}

// agreesWithModel: on a random timeline, steps back included, the store decides as the bare rule does.
func agreesWithModel(name string) func(*fixture) {
	return func(f *fixture) {
		f.needClock()
		const timelines, steps = 3, 60
		for seed := range uint64(timelines) {
			m := &model{rule: f.rule(quick(name))}
			r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a timeline that can be run again
			key := fmt.Sprintf("timeline %d", seed)
			now := int64(epoch)
			for i := range steps {
				s := m.walk(r, now)
				now = s.now
				f.Clock.Set(now)
				want := m.apply(s)
				if got := f.apply(key, m.rule, s.cost); got != want {
					f.Fatalf("%s, check %d, cost %g at %d: %+v, want %+v", key, i, s.cost, now, got, want)
				}
			}
		}
	}
}

// recordsRoundTrip: a record that random use has left reads back from its text as one that decides the same.
func recordsRoundTrip(name string) func(*fixture) {
	return func(f *fixture) {
		rule := f.rule(quick(name))
		r := rand.New(rand.NewPCG(2, 2)) //nolint:gosec // a timeline that can be run again
		for range 30 {
			if f.Clock != nil {
				f.Clock.Set(f.Clock.NowMillis() + r.Int64N(200))
			}
			f.apply("a", rule, float64(1+r.IntN(3)))
		}
		rec, now, err := f.Store.Load(f.ctx, "a", rule)
		if err != nil {
			f.Fatal(err)
		}
		if isZero(rec) {
			return // it has expired on a slow machine
		}
		text := f.encode(rule, rec)
		read, err := rule.Decode([]byte(text))
		if err != nil {
			f.Fatalf("%s does not read back: %v", text, err)
		}
		a, b := &model{rule: rule, rec: rec}, &model{rule: rule, rec: read}
		for i := range 60 {
			s := a.walk(r, now)
			now = s.now
			if want, got := a.apply(s), b.apply(s); got != want {
				f.Fatalf("read from %s, check %d, cost %g at %d: %+v, want %+v", text, i, s.cost, now, got, want)
			}
			if want, got := f.encode(rule, a.rec), f.encode(rule, b.rec); got != want {
				f.Fatalf("read from %s, after check %d: %s, want %s", text, i, got, want)
			}
		}
	}
}

// goldenVectors: the store carries the decisions that the core has written down.
func goldenVectors(f *fixture) {
	f.needClock()
	doc, err := vectors.Golden()
	if err != nil {
		f.Fatal(err)
	}
	var suites []vectors.Suite
	for _, s := range doc.Suites {
		if f.SkipVectors != nil {
			if reason := f.SkipVectors(s.Name); reason != "" {
				f.Logf("not replayed: %s: %s", s.Name, reason)
				continue
			}
		}
		suites = append(suites, s)
	}
	report, err := vectors.Replay(f.ctx, vectors.NewDocument(suites...), vectors.Store(f.Store, f.Clock, "vectors"))
	if err != nil {
		f.Fatal(err)
	}
	if err := report.Err(); err != nil {
		f.Error(err)
	}
	if report.Skipped > 0 {
		f.Errorf("%s: suites that the store cannot replay must be named by SkipVectors", report)
	}
}
