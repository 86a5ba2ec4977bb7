package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// epoch is where movable clocks stand when a case begins: 2023-11-14T22:13:20Z.
const epoch = 1_700_000_000_000

// patience is how long a case may take on a slow server before its context ends.
const patience = 2 * time.Minute

// fixture is a harness with what cases need around it.
type fixture struct {
	testing.TB
	Harness

	ctx context.Context //nolint:containedctx // a fixture lives as long as its test
}

func newFixture(tb testing.TB, h Harness) *fixture {
	tb.Helper()
	if h.Store == nil {
		tb.Fatal("the harness has no store")
	}
	if h.Workers <= 0 {
		h.Workers = 200
	}
	if h.Clock != nil {
		h.Clock.Set(epoch)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	tb.Cleanup(cancel)
	return &fixture{TB: tb, Harness: h, ctx: ctx}
}

// needClock skips a case on stores whose clock cannot be moved.
func (f *fixture) needClock() {
	f.Helper()
	if f.Clock == nil {
		f.Skip("the store's clock cannot be moved")
	}
}

// atomic reports whether all transitions may be members of one atomic batch.
func (f *fixture) atomic(transitions ...throttlekit.Transition) bool {
	for _, t := range transitions {
		if f.Atomic != nil && !f.Atomic(t) {
			return false
		}
	}
	return true
}

func (f *fixture) apply(key string, t throttlekit.Transition, cost float64) throttlekit.Decision {
	f.Helper()
	d, err := f.Store.Apply(f.ctx, key, t, cost)
	if err != nil {
		f.Fatalf("Apply of %s on %.80q: %v", t.Name(), key, err)
	}
	return d
}

func (f *fixture) batch(commit throttlekit.Commit, ops ...throttlekit.Op) []throttlekit.Decision {
	f.Helper()
	decisions, err := f.Store.Batch(f.ctx, ops, commit)
	if err != nil {
		f.Fatalf("Batch of %d ops: %v", len(ops), err)
	}
	if len(decisions) != len(ops) {
		f.Fatalf("Batch of %d ops returns %d decisions", len(ops), len(decisions))
	}
	return decisions
}

func (f *fixture) load(key string, t throttlekit.Transition) throttlekit.Record {
	f.Helper()
	rec, _, err := f.Store.Load(f.ctx, key, t)
	if err != nil {
		f.Fatalf("Load of %s on %.80q: %v", t.Name(), key, err)
	}
	return rec
}

// record is the text of a key's record, by which cases compare states, and empty for a fresh key.
func (f *fixture) record(key string, t throttlekit.Transition) string {
	f.Helper()
	rec := f.load(key, t)
	if isZero(rec) {
		return ""
	}
	return f.encode(t, rec)
}

func (f *fixture) encode(t throttlekit.Transition, rec throttlekit.Record) string {
	f.Helper()
	text, err := t.Encode(rec)
	if err != nil {
		f.Fatalf("%s cannot write %+v: %v", t.Name(), rec, err)
	}
	return string(text)
}

func isZero(rec throttlekit.Record) bool { return rec.A == 0 && rec.B == 0 && rec.Extra == nil }

func (f *fixture) reset(key string) {
	f.Helper()
	if err := f.Store.Reset(f.ctx, key); err != nil {
		f.Fatalf("Reset of %.80q: %v", key, err)
	}
}

// count is what the counter under key stands at.
func (f *fixture) count(key string) int64 {
	f.Helper()
	return f.apply(key, reader{}, 1).Remaining
}

// expect fails the case unless the counter under key stands at want.
func (f *fixture) expect(key string, want int64, when string) {
	f.Helper()
	if got := f.count(key); got != want {
		f.Errorf("the counter under %.80q stands at %d, want %d %s", key, got, want, when)
	}
}

// rule is a strategy's executable form.
func (f *fixture) rule(s throttlekit.Strategy) throttlekit.Rule {
	f.Helper()
	rule, err := s.Rule()
	if err != nil {
		f.Fatalf("%+v: %v", s, err)
	}
	return rule
}

// limiter is a limiter on the store.
func (f *fixture) limiter(s throttlekit.Strategy, opts ...throttlekit.Option) *throttlekit.Limiter {
	f.Helper()
	l, err := throttlekit.NewLimiter(s, append(opts, throttlekit.WithStore(f.Store))...)
	if err != nil {
		f.Fatalf("%+v: %v", s, err)
	}
	return l
}

// handle is the store for the i-th of several users: the store, or its peer, in turn.
func (f *fixture) handle(i int) throttlekit.Store {
	if f.Peer != nil && i%2 == 1 {
		return f.Peer
	}
	return f.Store
}

// together calls work for 0 to n-1 from as many goroutines as the store bears, which
// start at the same time, and fails the case with what they return.
func (f *fixture) together(n int, work func(i int, store throttlekit.Store) error) {
	f.Helper()
	workers := min(n, f.Workers)
	start := make(chan struct{})
	failures := make([]error, workers)
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			<-start
			for i := w; i < n && failures[w] == nil; i += workers {
				failures[w] = work(i, f.handle(i))
			}
		})
	}
	close(start)
	running.Wait()
	if err := errors.Join(failures...); err != nil {
		f.Fatalf("concurrent use: %v", err)
	}
}
