package concurrency

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

func TestEndings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(Permit)
		want Stats
	}{
		"release": {Permit.Release, Stats{Limit: 102, NoLoad: 10 * ms, Last: 10 * ms}},
		"drop":    {Permit.Drop, Stats{Limit: 92, Last: 10 * ms}},
		"cancel":  {Permit.Cancel, Stats{Limit: 100}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := &watch{}
			g := newTestGuard(t, Config{InitialLimit: 100, Elapsed: clock.elapsed})
			for range 99 {
				g.TryAcquire()
			}
			p := g.TryAcquire()
			if !p.Allowed || p.InFlight != 100 || p.Limit != 100 {
				t.Fatalf("%+v, want the last of 100", p)
			}
			if refused := g.TryAcquire(); refused != (Permit{Limit: 100, InFlight: 100}) {
				t.Fatalf("%+v, want a refusal at 100 of 100", refused)
			}
			clock.now += 10 * ms
			c.end(p)
			c.want.InFlight = 99
			for _, again := range []func(Permit){Permit.Release, Permit.Drop, Permit.Cancel} {
				if got := g.Stats(); got != c.want {
					t.Fatalf("%+v, want %+v", got, c.want)
				}
				twin := p
				again(twin)
			}
		})
	}
}

// The latency counts from Begin, which does nothing on what has ended or was refused.
func TestBegin(t *testing.T) {
	t.Parallel()
	clock := &watch{}
	g := newTestGuard(t, Config{MinLimit: 1, MaxLimit: 1, Elapsed: clock.elapsed})
	p := g.TryAcquire()
	clock.now += time.Hour
	p.Begin()
	g.TryAcquire().Begin() // refused
	Permit{}.Begin()
	clock.now += 10 * ms
	p.Release()
	next := g.TryAcquire()
	clock.now += 5 * ms
	p.Begin() // it has ended
	next.Release()
	if got := g.Stats(); got.Last != 5*ms || got.NoLoad != 5*ms {
		t.Errorf("%+v, want a latency of 5ms after one of 10ms", got)
	}
}

func TestOldPermitsDoNotEndNewerOnes(t *testing.T) {
	t.Parallel()
	g := newTestGuard(t, Config{})
	old := g.TryAcquire()
	old.Cancel()
	newer := g.TryAcquire()
	if newer.slot != old.slot {
		t.Fatalf("slots %d and %d: the first was not used again", old.slot, newer.slot)
	}
	old.Drop()
	if got := g.Stats().InFlight; got != 1 {
		t.Errorf("%d in flight, want the newer one", got)
	}
	newer.Release()
}

func TestRefusedPermitsDoNothing(t *testing.T) {
	t.Parallel()
	g := newTestGuard(t, Config{MinLimit: 1, MaxLimit: 1})
	held := g.TryAcquire()
	p, err := g.Acquire(t.Context())
	if err != nil || p.Allowed {
		t.Fatalf("%+v, %v", p, err)
	}
	before := g.Stats()
	for _, p := range []Permit{p, {}, {Allowed: true}} {
		p.Release()
		p.Drop()
		p.Cancel()
	}
	if after := g.Stats(); after != before {
		t.Errorf("%+v became %+v", before, after)
	}
	held.Release()
}

func TestAClockThatStepsBack(t *testing.T) {
	t.Parallel()
	clock := &watch{now: time.Second}
	g := newTestGuard(t, Config{Elapsed: clock.elapsed})
	p := g.TryAcquire()
	clock.now = 0
	p.Release()
	if got := g.Stats(); got.Last != 0 || got.NoLoad != 0 {
		t.Errorf("%+v, want nothing learned about latency", got)
	}
	for range 2 {
		p = g.TryAcquire()
		clock.now += 10 * ms
		p.Release()
		g.TryAcquire().Release() // in no time that the clock could see
		if got := g.Stats(); got.Last != 0 || got.NoLoad != 10*ms {
			t.Errorf("%+v, want a latency without load of 10ms", got)
		}
	}
}

// TestPermitsKeepToTheLimit does everything at random and counts for itself.
func TestPermitsKeepToTheLimit(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 7))
		clock := &watch{}
		g := newTestGuard(t, Config{Algorithm: algorithms[seed%2], MinLimit: 1 + random.IntN(4), MaxLimit: 20, Elapsed: clock.elapsed})
		var held, ended []Permit
		refused := 0
		for step := range 2000 {
			clock.now += time.Duration(random.IntN(10))
			limit := g.Stats().Limit
			switch random.IntN(3) {
			case 0, 1:
				p := g.TryAcquire()
				if p.Allowed != (len(held) < limit) || p.Limit != limit {
					t.Fatalf("seed %d, step %d: %+v with %d in flight of %d", seed, step, p, len(held), limit)
				}
				if p.Allowed {
					held = append(held, p)
				} else {
					refused++
				}
			default:
				end := []func(Permit){Permit.Release, Permit.Release, Permit.Drop, Permit.Cancel}[random.IntN(4)]
				if n := len(ended); n > 0 && random.IntN(2) == 0 {
					end(ended[random.IntN(n)])
				} else if n := len(held); n > 0 {
					i := random.IntN(n)
					end(held[i])
					ended, held = append(ended, held[i]), slices.Delete(held, i, i+1)
				}
			}
			if got := g.Stats().InFlight; got != len(held) {
				t.Fatalf("seed %d, step %d: %d in flight, want %d", seed, step, got, len(held))
			}
		}
		if refused == 0 || len(ended) == 0 {
			t.Errorf("seed %d: %d refused and %d ended shows nothing", seed, refused, len(ended))
		}
	}
}

// TestAlone compares who counts as alone with the greatest number in flight over each permit's life.
func TestAlone(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 4))
		clock := &watch{}
		const limit = 3
		g := newTestGuard(t, Config{MinLimit: limit, InitialLimit: 8, RTTWindow: 1000, Elapsed: clock.elapsed})
		type held struct {
			permit Permit
			peak   int // of what was in flight while it was
		}
		var all []*held
		for step := range 400 {
			clock.now += time.Duration(1 + random.IntN(3))
			if random.IntN(2) == 0 {
				if p := g.TryAcquire(); p.Allowed {
					all = append(all, &held{permit: p})
				}
			}
			for _, h := range all {
				h.peak = max(h.peak, len(all))
			}
			if len(all) == 0 || random.IntN(2) == 0 {
				continue
			}
			i := random.IntN(len(all))
			h := all[i]
			all = slices.Delete(all, i, i+1)
			before := g.law.noLoad.number
			clock.now++
			h.permit.Release()
			if alone := g.law.noLoad.number > before; alone != (h.peak <= limit) {
				t.Fatalf("seed %d, step %d: alone is %v, with at most %d in flight", seed, step, alone, h.peak)
			}
		}
	}
}

func TestHungRequestsDoNotHoldARecalibrationOpen(t *testing.T) {
	t.Parallel()
	clock := &watch{}
	g := newTestGuard(t, Config{InitialLimit: 20, Elapsed: clock.elapsed, Recalibration: &Recalibration{Interval: 10 * time.Second}})
	for range 10 {
		g.TryAcquire() // and never ended
	}
	clock.now = 10 * time.Second
	g.TryAcquire().Release()
	if p := g.TryAcquire(); p.Allowed || p.Limit != 4 {
		t.Fatalf("%+v, want a refusal during the measurement", p)
	}
	if got := g.Stats().Limit; got < 20 {
		t.Errorf("the measurement made the limit %d", got)
	}
	clock.now += time.Second
	if p := g.TryAcquire(); !p.Allowed {
		t.Errorf("%+v, want a permit after the measurement was given up", p)
	}
}

// wait starts a caller and returns once it waits.
func wait(ctx context.Context, g *Guard, priority Priority, got func(Permit, error)) {
	go func() { got(g.AcquirePriority(ctx, priority)) }()
	synctest.Wait()
}

func TestTheQueueIsServedByPriorityThenArrival(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newTestGuard(t, Config{MinLimit: 1, MaxLimit: 1, Queue: 2})
		last := g.TryAcquire()
		var order []string
		for i, priority := range []Priority{Low, Normal, High, Low, High, Normal} {
			wait(t.Context(), g, priority, func(p Permit, err error) {
				if err != nil || !p.Allowed || p.InFlight != 1 {
					t.Errorf("%+v, %v", p, err)
				}
				order = append(order, fmt.Sprint(priority, i))
				last = p
			})
		}
		for _, priority := range []Priority{Low, Normal, High} {
			if p, err := g.AcquirePriority(t.Context(), priority); err != nil || p.Allowed {
				t.Errorf("%+v, %v, want a refusal by a full queue", p, err)
			}
		}
		if got := g.Stats().Waiting; got != 6 {
			t.Errorf("%d wait, want 6", got)
		}
		for i := range 6 {
			last.Cancel()
			if p := g.TryAcquire(); p.Allowed {
				t.Fatal("somebody passed the queue")
			}
			synctest.Wait()
			if got := g.Stats(); got.Waiting != 5-i || got.InFlight != 1 {
				t.Fatalf("%+v after %d were served", got, i+1)
			}
		}
		last.Cancel()
		if want := []string{"1 2", "1 4", "0 1", "0 5", "-1 0", "-1 3"}; !slices.Equal(order, want) {
			t.Errorf("served in the order %v, want %v", order, want)
		}
	})
}

func TestWhoGivesUpHoldsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newTestGuard(t, Config{MinLimit: 1, MaxLimit: 1, Queue: 2})
		held := g.TryAcquire()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if _, err := g.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if _, err := g.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v for a context that has ended", err)
		}
		if got := g.Stats(); got.Waiting != 0 || got.InFlight != 1 {
			t.Errorf("%+v after a caller gave up", got)
		}

		held.Release()
		if p, err := g.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) || p.Allowed {
			t.Errorf("%+v, %v for a context that has ended while a permit is free", p, err)
		}
		held = g.TryAcquire()

		ctx, stop := context.WithCancel(t.Context())
		var second, third error
		var thirds Permit
		wait(ctx, g, Normal, func(_ Permit, err error) { second = err })
		wait(t.Context(), g, Normal, func(p Permit, err error) { thirds, third = p, err })
		held.Release() // serves the second
		stop()         // which has not run yet
		synctest.Wait()
		if !errors.Is(second, context.Canceled) || third != nil || !thirds.Allowed {
			t.Errorf("%v, and %+v with %v; want the slot to pass on", second, thirds, third)
		}
		thirds.Release()
		if got := g.Stats(); got.InFlight != 0 || got.Waiting != 0 {
			t.Errorf("%+v at the end", got)
		}
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newTestGuard(t, Config{MinLimit: 1, MaxLimit: 1, Queue: 2})
		held := g.TryAcquire()
		errs := make(chan error, 3)
		for _, priority := range []Priority{Low, High, High} {
			wait(t.Context(), g, priority, func(p Permit, err error) {
				if p.Allowed {
					t.Error("a permit of a closed guard")
				}
				errs <- err
			})
		}
		for range 2 {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}
		for range 3 {
			if err := <-errs; !errors.Is(err, throttlekit.ErrClosed) {
				t.Errorf("somebody who waited got %v", err)
			}
		}
		held.Release()
		if got := g.Stats(); got.InFlight != 0 || got.Waiting != 0 || got.NoLoad != got.Last {
			t.Errorf("%+v after the last permit ended", got)
		}
		if _, err := g.Acquire(t.Context()); !errors.Is(err, throttlekit.ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
		if p := g.TryAcquire(); p.Allowed {
			t.Errorf("%+v of a closed guard", p)
		}
	})
}

func TestPriorityIsChecked(t *testing.T) {
	t.Parallel()
	g := newTestGuard(t, Config{})
	for _, priority := range []Priority{-2, 2, 100} {
		if p, err := g.AcquirePriority(t.Context(), priority); !errors.Is(err, throttlekit.ErrInvalid) || p.Allowed {
			t.Errorf("%d: %+v, %v", priority, p, err)
		}
	}
}

// TestMany lets goroutines acquire, wait, give up and end permits, some of them twice at once.
func TestMany(t *testing.T) {
	t.Parallel()
	const workers, each, most = 16, 300, 12
	g := newTestGuard(t, Config{MinLimit: 1, MaxLimit: most, Queue: 8, Recalibration: &Recalibration{Interval: 100 * time.Microsecond}})
	var inFlight, admitted atomic.Int64
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 5))
			for range each {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(2000))*time.Microsecond)
				p, err := g.AcquirePriority(ctx, Priority(random.IntN(3)-1))
				cancel()
				if err != nil || !p.Allowed {
					if !p.Allowed && err == nil && p.InFlight < p.Limit {
						t.Errorf("refused at %d of %d", p.InFlight, p.Limit)
					}
					continue
				}
				if p.InFlight > p.Limit || p.Limit > most {
					t.Errorf("admitted at %d of %d", p.InFlight, p.Limit)
				}
				if n := inFlight.Add(1); n > most {
					t.Errorf("%d in flight, of at most %d", n, most)
				}
				admitted.Add(1)
				inFlight.Add(-1)
				end := []func(Permit){Permit.Release, Permit.Drop, Permit.Cancel}[random.IntN(3)]
				group.Go(func() { end(p) })
				end(p)
			}
		})
	}
	group.Wait()
	if got := g.Stats(); got.InFlight != 0 || got.Waiting != 0 {
		t.Errorf("%+v at the end", got)
	}
	if admitted.Load() == 0 {
		t.Error("nobody was admitted")
	}
	free := 0
	for place := g.free; place != none; place = g.slots[place].next {
		free++
	}
	if len(g.slots) > most || free != len(g.slots) {
		t.Errorf("%d slots, %d of them free, for at most %d permits", len(g.slots), free, most)
	}
}
