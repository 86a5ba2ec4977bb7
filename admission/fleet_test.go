package admission

import (
	"context"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

// TestFleet: what binds is the share, and how long to wait is what this node has seen.
func TestFleet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	ceiling, err := concurrency.NewCeiling(concurrency.CeilingConfig{})
	if err != nil {
		t.Fatal(err)
	}
	guard, err := concurrency.NewFleetGuard(concurrency.FleetConfig{
		Local:   concurrency.Config{MinLimit: 2, MaxLimit: 2, Elapsed: func() time.Duration { return time.Duration(w.elapsed.Load()) }},
		Ceiling: ceiling, Store: w.store.Store, Key: concurrency.CeilingKey("f", "x"), Node: "n",
		Outage: concurrency.LocalOnly, Heartbeat: time.Hour, TTL: 2 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := guard.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := guard.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	config := w.config()
	config.Guard = Fleet(guard)
	a := newAdmitter(t, config)
	first := admit(t, a, Request{Key: "k"})
	w.elapsed.Add(int64(37 * time.Millisecond))
	first.Release()
	for range 2 {
		adm := admit(t, a, Request{Key: "k"})
		t.Cleanup(adm.Release)
		if !adm.Allowed || adm.Limit != 2 {
			t.Errorf("%+v", adm)
		}
	}
	want := throttlekit.Decision{Limit: 2, ResetAtMillis: start, RetryAfterMillis: 37}
	if adm := admit(t, a, Request{Key: "k"}); adm.Decision != want || adm.Binding != Concurrency {
		t.Errorf("%+v", adm)
	}
}

// none is a guard that admits nobody, such as one that has no share of its fleet's ceiling.
type none struct{}

func (none) Acquire(context.Context) (concurrency.Permit, error) { return concurrency.Permit{}, nil }
func (none) Stats() concurrency.Stats                            { return concurrency.Stats{} }

// TestNoShare: without a share it takes a heartbeat, and not a millisecond, until there may be one.
func TestNoShare(t *testing.T) {
	t.Parallel()
	a := newAdmitter(t, Config{Guard: none{}, Clock: throttlekit.NewManualClock(start)})
	want := throttlekit.Decision{ResetAtMillis: start, RetryAfterMillis: 1000}
	if adm := admit(t, a, Request{Key: "k"}); adm.Decision != want || adm.Binding != Concurrency {
		t.Errorf("%+v", adm)
	}
}
