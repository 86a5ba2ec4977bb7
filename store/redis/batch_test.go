package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// TestBatchOrder checks one key many times over in one batch, while no script is loaded: each
// check must see what those before it have done.
func TestBatchOrder(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	clock := throttlekit.NewManualClock(base)
	store := open(t, server.URL(), redisstore.Config{Clock: clock, TTLFloor: far})
	rule := ruleOf(t, throttlekit.FixedWindow{Limit: 100, Window: time.Hour})
	other := ruleOf(t, throttlekit.TokenBucket{Capacity: 100, RefillPerSec: 1})
	for round := range 5 {
		if err := server.FlushScripts(t.Context()); err != nil {
			t.Fatal(err)
		}
		same, apart := fmt.Sprint("same", round), fmt.Sprint("apart", round)
		var ops []throttlekit.Op
		for i := range 20 {
			ops = append(ops,
				throttlekit.Op{Key: same, Transition: rule, Cost: float64(i + 1)},
				throttlekit.Op{Key: fmt.Sprint(apart, i), Transition: other, Cost: float64(i + 1)},
				throttlekit.Op{Key: fmt.Sprint("custom", round), Transition: tally{limit: 100, ttl: 1000}, Cost: 1})
		}
		decisions, err := store.Batch(t.Context(), ops, throttlekit.CommitEach)
		if err != nil {
			t.Fatal(err)
		}
		left := int64(100)
		for i := range 20 {
			cost := int64(i + 1)
			if cost <= left {
				left -= cost
			}
			if d := decisions[3*i]; d.Remaining != left {
				t.Errorf("round %d, check %d: %+v, want %d left", round, i, d, left)
			}
			if d := decisions[3*i+1]; d.Remaining != 100-cost {
				t.Errorf("round %d, check %d apart: %+v", round, i, d)
			}
			if d := decisions[3*i+2]; d.Remaining != 99-int64(i) {
				t.Errorf("round %d, custom check %d: %+v", round, i, d)
			}
		}
	}
}

// TestBatchIsOneRoundTrip counts what arrives at the server.
func TestBatchIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	proxy, err := redistest.StartProxy(t.Context(), server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	store := open(t, "redis://"+proxy.Addr, redisstore.Config{})
	limiter, err := throttlekit.NewLimiter(throttlekit.GCRA{Limit: 5, Period: time.Second}, throttlekit.WithStore(store))
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]string, 200)
	for i := range keys {
		keys[i] = fmt.Sprint("k", i)
	}
	for name, call := range map[string]func() error{
		"many": func() error { _, err := limiter.CheckMany(t.Context(), keys, 1); return err },
		"one":  func() error { _, err := limiter.Check(t.Context(), "k"); return err },
		"peek": func() error { _, err := limiter.Peek(t.Context(), "k"); return err },
	} {
		if err := call(); err != nil { // loads the script, and connects
			t.Fatal(err)
		}
		before := proxy.Turns()
		if err := call(); err != nil {
			t.Fatal(err)
		}
		if turns := proxy.Turns() - before; turns != 1 {
			t.Errorf("%s: %d round trips", name, turns)
		}
	}
}
