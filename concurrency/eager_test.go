package concurrency

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestEagerBeats counts beats: none beyond the usual while all is quiet, and one for each thing that is news.
func TestEagerBeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		eager := func(c *FleetConfig) {
			c.Eager = true
			c.Ceiling = newTestCeiling(t, CeilingConfig{AcknowledgedHandoff: true})
		}
		start := time.Now()
		store := newBubbleStore(t)
		a := join(t, store, "a", 6, eager)
		beats := func(n testNode, want int, why string) {
			t.Helper()
			if got := n.line.count(); got != want {
				t.Errorf("%s: %d beats, want %d", why, got, want)
			}
		}
		beats(a, 1, "joined")
		after(start, 99*ms)
		beats(a, 1, "too early to acknowledge")
		after(start, 100*ms)
		beats(a, 2, "acknowledged")
		after(start, 1099*ms)
		end(take(t, a, 6))
		beats(a, 2, "at rest")
		after(start, 1100*ms)
		beats(a, 3, "at rest")
		held := take(t, a, 6)
		take(t, a, 0) // its part is all there is: no news
		after(start, 2*time.Second)
		beats(a, 3, "full")

		b := join(t, store, "b", 6, eager) // gets nothing: a has all
		after(start, 2099*ms)
		beats(b, 1, "joined")
		for range 100 {
			take(t, b, 0)
		}
		beats(b, 1, "too early")
		after(start, 2100*ms)
		beats(b, 2, "pulled")
		beats(a, 4, "at rest") // and hears that 3 are its part
		after(start, 2200*ms)
		beats(a, 5, "acknowledged")
		after(start, 2500*ms)
		end(held[:2])
		after(start, 2501*ms)
		beats(a, 5, "4 of 3 in flight")
		end(held[2:3])
		after(start, 2502*ms)
		beats(a, 6, "pushed")
		after(start, 2999*ms)
		beats(a, 6, "at rest")
		beats(b, 2, "nobody asked")
		take(t, b, 0)
		after(start, 3000*ms)
		beats(b, 3, "pulled") // and has its part
		take(t, b, 3)
		after(start, 3100*ms)
		beats(b, 4, "acknowledged")
		for range 50 {
			take(t, a, 0)
			take(t, b, 0)
			<-time.After(200 * ms)
		}
		beats(a, 16, "at rest for ten seconds")
		beats(b, 14, "at rest for ten seconds")
	})
}

// TestWhoWaitsPulls, too: a caller in the queue asks once, and its node until there is a slot.
func TestWhoWaitsPulls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		eager := func(c *FleetConfig) { c.Eager = true }
		start := time.Now()
		store := newBubbleStore(t)
		a := join(t, store, "a", 6, nil)
		held := take(t, a, 6)
		after(start, 500*ms)
		b := join(t, store, "b", 6, eager)
		served := false
		wait(t.Context(), b.guard, Normal, func(p Permit, err error) { served = p.Allowed && err == nil })
		after(start, 1550*ms)
		if got := b.line.count(); got != 11 || served {
			t.Errorf("%d beats in a second, served: %v", got, served)
		}
		end(held[:4])
		_ = a.Beat(t.Context())
		after(start, 1600*ms)
		if !served {
			t.Error("not served within a tenth of a heartbeat")
		}
	})
}

// TestNewsDuringABeat is told after it: slots come free while the node hears that it has too many in use.
func TestNewsDuringABeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		store := newBubbleStore(t)
		a := join(t, store, "a", 6, func(c *FleetConfig) { c.Eager = true })
		held := take(t, a, 6)
		join(t, store, "b", 6, nil)
		a.line.set(nil, takes(20*ms, 20*ms))
		after(start, 1010*ms)
		end(held)
		after(start, 1099*ms)
		if got := a.line.count(); got != 2 {
			t.Errorf("%d beats", got)
		}
		after(start, 1100*ms)
		if got := a.line.count(); got != 3 {
			t.Errorf("%d beats: slots that came free were not told of", got)
		}
	})
}

// TestNewsInAnOutage must not make a guard send more than it does anyway.
func TestNewsInAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		store := newBubbleStore(t)
		join(t, store, "a", 6, nil)
		b := join(t, store, "b", 6, func(c *FleetConfig) { c.Eager = true })
		b.line.set(errDown, nil)
		for time.Since(start) < 10*time.Second {
			take(t, b, 0)
			after(start, time.Since(start)+10*ms)
		}
		if got := b.line.count(); got > 14 {
			t.Errorf("%d beats in ten seconds", got)
		}
	})
}

// TestRamp compares how long a second node takes to get its part, with eager beats and without.
func TestRamp(t *testing.T) {
	t.Parallel()
	mean := func(eager bool) (sum time.Duration) {
		const rounds = 40
		for round := range rounds {
			synctest.Test(t, func(t *testing.T) {
				change := func(c *FleetConfig) {
					handoff(t)(c)
					c.Eager = eager
				}
				store := newBubbleStore(t)
				join(t, store, "a", 6, change)
				<-time.After(3*time.Second + time.Duration(round)*25*ms)
				start := time.Now()
				b := join(t, store, "b", 6, change)
				for b.Stats().Share < 3 {
					b.TryAcquire().Cancel()
					<-time.After(ms)
				}
				sum += time.Since(start) / rounds
			})
		}
		return sum
	}
	periodic, eager := mean(false), mean(true)
	t.Logf("a second node has its part after %v, with eager beats after %v", periodic, eager)
	if eager > periodic*6/10 {
		t.Errorf("%v with eager beats, %v without", eager, periodic)
	}
}

// TestDemand gives a hot node what idle ones do not use.
func TestDemand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBubbleStore(t)
		var nodes []testNode
		for i := range 4 {
			nodes = append(nodes, join(t, store, fmt.Sprint("n", i), 12, func(c *FleetConfig) {
				c.Ceiling = newTestCeiling(t, CeilingConfig{Allocation: DemandProportional, AcknowledgedHandoff: true})
			}))
		}
		for range 100 { // the first is hot
			var held []Permit
			for p := nodes[0].TryAcquire(); p.Allowed; p = nodes[0].TryAcquire() {
				held = append(held, p)
			}
			<-time.After(100 * ms)
			end(held)
		}
		for i, n := range nodes {
			if want := map[bool]int{true: 9, false: 1}[i == 0]; n.Stats().Share != want {
				t.Errorf("node %d has %d, want %d", i, n.Stats().Share, want)
			}
		}
	})
}
