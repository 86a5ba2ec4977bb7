package fair

import (
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

func TestEscrowPins(t *testing.T) {
	t.Parallel()
	heavy := weights(map[string]float64{"high": 4})
	t.Run("shares follow weights", func(t *testing.T) {
		t.Parallel()
		e := newLab(t).escrow(t, EscrowConfig{Limit: 10, WeightOf: heavy})
		got := drain(t, ask{e, "high", 1}, ask{e, "low", 1})
		if got["high"] != 8 || got["low"] != 2 {
			t.Errorf("got %v, want high 8, low 2", got)
		}
	})
	t.Run("a tenant that asked once keeps its claim", func(t *testing.T) {
		t.Parallel()
		e := newLab(t).escrow(t, EscrowConfig{Limit: 10, WeightOf: heavy})
		check(t, e, "high", 1)
		if got := drain(t, ask{e, "low", 1}); got["low"] != 2 {
			t.Errorf("got %v, want low 2", got)
		}
	})
	t.Run("an early tenant makes room", func(t *testing.T) {
		t.Parallel()
		e := newLab(t).escrow(t, EscrowConfig{Limit: 10})
		check(t, e, "a", 2)
		if d := check(t, e, "b", 1); !d.Allowed || d.Limit != 5 || d.Remaining != 4 {
			t.Errorf("got %+v, want limit 5, remaining 4", d)
		}
	})
	t.Run("a guarantee is multiplied first", func(t *testing.T) {
		t.Parallel()
		e := newLab(t).escrow(t, EscrowConfig{Limit: 99, WeightOf: weights(map[string]float64{"a": 6, "b": 5})})
		check(t, e, "b", 1)
		if d := check(t, e, "a", 1); d.Limit != 54 {
			t.Errorf("got %+v, want limit 54", d)
		}
	})
	t.Run("borrowing lets one call cross the guarantee", func(t *testing.T) {
		t.Parallel()
		e := newLab(t).escrow(t, EscrowConfig{Limit: 10}) // three guarantees of 3, and 1 that nobody has a claim on
		check(t, e, "b", 1)
		check(t, e, "c", 1)
		check(t, e, "a", 3)
		if d := check(t, e, "a", 1); !d.Allowed || d.Limit != 4 || d.Remaining != 0 {
			t.Errorf("got %+v, want an allow with limit 4", d)
		}
		if d := check(t, e, "a", 1); d.Allowed || d.Limit != 3 || d.Remaining != 0 {
			t.Errorf("what others have a claim on is not to be lent: got %+v", d)
		}
	})
	t.Run("beyond the guarantee there is nothing", func(t *testing.T) {
		t.Parallel()
		e := newLab(t).escrow(t, EscrowConfig{Limit: 10})
		check(t, e, "a", 6) // alone, within its guarantee of 10
		check(t, e, "b", 1) // now a's guarantee is 5
		if d := check(t, e, "a", 1); d.Allowed || d.Limit != 5 || d.RetryAfterMillis != 1000 {
			t.Errorf("got %+v, want a denial with limit 5", d)
		}
		check(t, e, "b", 3)
		if d := check(t, e, "a", 5); d.Allowed || d.Limit != 6 || d.Remaining != 0 {
			t.Errorf("got %+v, want a denial whose limit is what was used", d)
		}
	})
	t.Run("limit 4, weights 3:1, alternating", func(t *testing.T) {
		t.Parallel()
		e := newLab(t).escrow(t, EscrowConfig{Limit: 4, WeightOf: weights(map[string]float64{"vip": 3}), MaxTenants: 2})
		got := drain(t, ask{e, "vip", 1}, ask{e, "free", 1})
		if got["vip"] <= got["free"] || got["vip"]+got["free"] > 4 {
			t.Errorf("got %v", got)
		}
		check(t, e, "another", 1)
		if n := len(e.Stats().Tenants); n != 2 {
			t.Errorf("got %d tenants, want 2", n)
		}
	})
}

func TestEscrowRollsForwardOnly(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := l.escrow(t, EscrowConfig{Limit: 2})
	l.clock.Set(base + 1999)
	check(t, e, "a", 2)
	l.clock.Set(base + 500)
	if d := check(t, e, "a", 1); d.Allowed || d.ResetAtMillis != base+2000 || d.RetryAfterMillis != 1500 {
		t.Errorf("a step back reopened the window: %+v", d)
	}
	l.clock.Set(base + 2000)
	if d := check(t, e, "a", 1); !d.Allowed || d.ResetAtMillis != base+3000 {
		t.Errorf("at its end a window is over: %+v", d)
	}
}

// TestEscrowFloodStaysWithinLimit floods a small table with tenants that come once.
func TestEscrowFloodStaysWithinLimit(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 2, 7} {
		l := newLab(t)
		for _, e := range []*Escrow{
			l.escrow(t, EscrowConfig{Limit: 50, MaxTenants: most}),
			l.escrow(t, EscrowConfig{Limit: 50, MaxTenants: most, Store: l.store, Quantum: 8, Key: strconv.Itoa(most)}),
		} {
			used := 0
			for i := range 500 {
				if check(t, e, strconv.Itoa(i), 1).Allowed {
					used++
				}
			}
			s := e.Stats()
			if used != 50 || s.TotalUsed != 50 || s.Pool != 0 || len(s.Tenants) != most {
				t.Errorf("%d seats: admitted %d, %+v", most, used, s)
			}
		}
	}
}

func TestEscrowResetFreesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, e := range []*Escrow{
		l.escrow(t, EscrowConfig{Limit: 10}), l.escrow(t, EscrowConfig{Limit: 10, Store: l.store, Quantum: 10}),
	} {
		check(t, e, "a", 6)
		check(t, e, "b", 1)
		e.Reset("a")
		e.Reset("nobody")
		if s := e.Stats(); s.TotalUsed != 7 || len(s.Tenants) != 1 {
			t.Errorf("got %+v", s)
		}
		if d := check(t, e, "b", 2); !d.Allowed || d.Limit != 10 {
			t.Errorf("b does not get a's share: %+v", d)
		}
		if got := drain(t, ask{e, "a", 1}); got["a"] != 1 {
			t.Errorf("after 9 of 10 units a got %v more", got)
		}
	}
}

// TestEscrowTheorems checks T2 to T4 for random weights and cost 1: with all tenants busy
// everybody reaches the guarantee, the whole limit is used, and use per weight is even.
func TestEscrowTheorems(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(4, 3))
	for range 300 {
		n := 2 + r.IntN(6)
		table, asks := make(map[string]float64), make([]ask, n)
		l := newLab(t)
		limit := float64(n + r.IntN(300))
		e := l.escrow(t, EscrowConfig{Limit: limit, WeightOf: func(tenant string) float64 { return table[tenant] }})
		total, lightest := 0.0, math.Inf(1)
		for i := range asks {
			asks[i] = ask{e, strconv.Itoa(i), 1}
			w := float64(1 + r.IntN(5))
			table[asks[i].tenant] = w
			total, lightest = total+w, min(lightest, w)
		}
		// A first round in a window makes everybody active before anybody has more than a unit.
		got := drain(t, asks...)
		sum, least, most := 0.0, math.Inf(1), math.Inf(-1)
		for tenant, used := range got {
			sum += used
			if used < math.Floor(table[tenant]*limit/total) {
				t.Errorf("T2: limit %v, weights %v: got %v", limit, table, got)
			}
			least, most = min(least, used/table[tenant]), max(most, used/table[tenant])
		}
		if sum != limit || len(got) != n {
			t.Errorf("T3: limit %v, weights %v: got %v", limit, table, got)
		}
		if most-least > 2/lightest {
			t.Errorf("T4: limit %v, weights %v: got %v", limit, table, got)
		}
	}
}

// TestEscrowTheoremOneForAnyCosts checks T1 with costs, weights and tenants at random, in one process and several.
func TestEscrowTheoremOneForAnyCosts(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5))
		l := newLab(t)
		limit := float64(1 + r.IntN(200))
		of := weights(map[string]float64{"1": 3, "2": 0.5})
		escrows := []*Escrow{l.escrow(t, EscrowConfig{Limit: limit, WeightOf: of, MaxTenants: 3})}
		if seed%2 == 0 {
			escrows = nil
			for range 1 + r.IntN(4) {
				escrows = append(escrows, l.escrow(t, EscrowConfig{
					Limit: limit, WeightOf: of, MaxTenants: 1 + r.IntN(5), Store: l.store, Quantum: int64(1 + r.IntN(30)),
				}))
			}
		}
		used := map[int64]float64{}
		for range 600 {
			l.clock.Advance(time.Duration(r.IntN(8)) * time.Millisecond)
			cost := []float64{1, 2, 0.25, 5, 17}[r.IntN(5)]
			if d := check(t, escrows[r.IntN(len(escrows))], strconv.Itoa(r.IntN(6)), cost); d.Allowed {
				used[d.ResetAtMillis] += cost
			}
		}
		for window, sum := range used {
			if sum > limit {
				t.Errorf("seed %d: window %d admitted %v of %v", seed, window, sum, limit)
			}
		}
	}
}

// TestSharedEscrowEqualsLocal checks that with a quantum of the whole limit a shared escrow admits as a local one.
func TestSharedEscrowEqualsLocal(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 6))
		l := newLab(t)
		limit := int64(1 + r.IntN(100))
		of := weights(map[string]float64{"1": 3, "2": 2})
		local := l.escrow(t, EscrowConfig{Limit: float64(limit), WeightOf: of})
		shared := l.escrow(t, EscrowConfig{Limit: float64(limit), WeightOf: of, Store: l.store, Quantum: limit})
		for i := range 400 {
			l.clock.Advance(time.Duration(r.IntN(12)) * time.Millisecond)
			tenant, cost := strconv.Itoa(r.IntN(5)), float64(1+r.IntN(4))
			want, got := check(t, local, tenant, cost), check(t, shared, tenant, cost)
			if got != want {
				t.Fatalf("seed %d, step %d: got %+v, want %+v", seed, i, got, want)
			}
		}
	}
}

// TestSharedEscrowTakesWhatIsLeft checks that units below the quantum are of use to somebody.
func TestSharedEscrowTakesWhatIsLeft(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	config := EscrowConfig{Limit: 10, Store: l.store, Quantum: 4}
	a, b, c := l.escrow(t, config), l.escrow(t, config), l.escrow(t, config)
	got := drain(t, ask{a, "a", 1}, ask{b, "b", 1}, ask{c, "c", 1})
	if got["a"] != 4 || got["b"] != 4 || got["c"] != 2 {
		t.Errorf("got %v, want 4, 4 and 2", got)
	}
	d := check(t, c, "c", 1)
	if want := (throttlekit.Decision{Limit: 2, ResetAtMillis: base + 1000, RetryAfterMillis: 1000}); d != want {
		t.Errorf("got %+v, want %+v", d, want)
	}
	if d := check(t, c, "c", 11); d.Allowed {
		t.Errorf("a cost beyond the limit was admitted: %+v", d)
	}
}

// TestSharedEscrowGivesBack checks that a process that stops leaves its lease to the others.
func TestSharedEscrowGivesBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	config := EscrowConfig{Limit: 10, Store: l.store, Quantum: 10}
	a := l.escrow(t, config)
	check(t, a, "a", 3)
	b := l.escrow(t, config)
	if d := check(t, b, "b", 1); d.Allowed {
		t.Fatalf("got %+v, although everything is leased", d)
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := drain(t, ask{b, "b", 1}); got["b"] != 7 {
		t.Errorf("b got %v, want the other 7", got)
	}
	if _, err := a.Check(t.Context(), "a"); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestEscrowRefusesWrongValues(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, tt := range []struct {
		config EscrowConfig
		field  string
	}{
		{EscrowConfig{Limit: 0, Window: 1}, "limit"},
		{EscrowConfig{Limit: 0.9, Window: 1}, "limit"},
		{EscrowConfig{Limit: math.NaN(), Window: 1}, "limit"},
		{EscrowConfig{Limit: math.Inf(1), Window: 1}, "limit"},
		{EscrowConfig{Limit: 1}, "window"},
		{EscrowConfig{Limit: 1, Window: 1, MaxTenants: -1}, "maxTenants"},
		{EscrowConfig{Limit: 1, Window: 1, Timeout: -1}, "timeout"},
		{EscrowConfig{Limit: 1, Window: 1, Quantum: 1}, "quantum"},
		{EscrowConfig{Limit: 1, Window: 1, Key: "k"}, "key"},
		{EscrowConfig{Limit: 1, Window: 1, Store: l.store}, "quantum"},
		{EscrowConfig{Limit: 1, Window: 1, Store: l.store, Quantum: -1}, "quantum"},
		{EscrowConfig{Limit: 1, Window: 1, Store: l.store, Quantum: 1, Clock: l.clock}, "clock"},
	} {
		_, err := NewEscrow(tt.config)
		var invalid *throttlekit.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != tt.field {
			t.Errorf("%+v: got %v, want an error about %s", tt.config, err, tt.field)
		}
	}
}

// TestConcurrentChecksAdmitTheLimit has 200 goroutines at a limit of 50.
func TestConcurrentChecksAdmitTheLimit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, c := range map[string]checker{
		"local":     l.escrow(t, EscrowConfig{Limit: 50}),
		"shared":    l.escrow(t, EscrowConfig{Limit: 50, Store: l.store, Quantum: 1}),
		"quantum 7": l.escrow(t, EscrowConfig{Limit: 50, Store: l.store, Quantum: 7, Key: "7"}),
		"federated": l.federated(t, FederatedConfig{Region: "eu", Pool: newPool(t, PoolConfig{Limit: 50})}),
	} {
		for _, tenants := range []int{1, 5} {
			l.clock.Advance(time.Second)
			var admitted atomic.Int64
			var group sync.WaitGroup
			for i := range 200 {
				group.Go(func() {
					d, err := c.Check(t.Context(), strconv.Itoa(i%tenants))
					if err != nil {
						t.Error(err)
					}
					if d.Allowed {
						admitted.Add(1)
					}
				})
			}
			group.Wait()
			if n := admitted.Load(); n != 50 {
				t.Errorf("%s, %d tenants: admitted %d, want 50", name, tenants, n)
			}
		}
	}
}
