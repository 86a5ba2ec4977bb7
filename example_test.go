package throttlekit_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// A clock that stands still makes the examples' output the same every time. Programs
// leave the option away and get the system clock.
func exampleClock() throttlekit.Option {
	return throttlekit.WithClock(throttlekit.NewManualClock(1_700_000_000_000))
}

func ExampleNewLimiter() {
	limiter, err := throttlekit.NewLimiter(throttlekit.GCRA{Limit: 10, Period: time.Second, Burst: 2}, exampleClock())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limiter.Close()
	for range 3 {
		decision, err := limiter.Check(context.Background(), "user:42")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(decision.Allowed, decision.Remaining, decision.RetryAfter())
	}
	// Output:
	// true 1 0s
	// true 0 0s
	// false 0 100ms
}

func ExampleNewLimiter_invalid() {
	_, err := throttlekit.NewLimiter(throttlekit.TokenBucket{Capacity: 10, RefillPerSec: -1})
	fmt.Println(err)
	fmt.Println(errors.Is(err, throttlekit.ErrInvalid))
	// Output:
	// refillPerSec must be a positive finite number, got -1
	// true
}

func ExampleLimiter_CheckN() {
	limiter, err := throttlekit.NewLimiter(throttlekit.TokenBucket{Capacity: 100, RefillPerSec: 10}, exampleClock())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limiter.Close()
	for _, cost := range []float64{60, 60, 40} {
		decision, err := limiter.CheckN(context.Background(), "team:a", cost)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(decision.Allowed, decision.Remaining, decision.RetryAfter())
	}
	// Output:
	// true 40 0s
	// false 40 2s
	// true 0 0s
}

func ExampleLimiter_CheckMany() {
	limiter, err := throttlekit.NewLimiter(throttlekit.FixedWindow{Limit: 1, Window: time.Minute}, exampleClock())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limiter.Close()
	decisions, err := limiter.CheckMany(context.Background(), []string{"a", "b", "a"}, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, decision := range decisions {
		fmt.Println(decision.Allowed)
	}
	// Output:
	// true
	// true
	// false
}

func ExampleLimiter_Forecast() {
	limiter, err := throttlekit.NewLimiter(throttlekit.TokenBucket{Capacity: 10, RefillPerSec: 2}, exampleClock())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limiter.Close()
	ctx := context.Background()
	if _, err := limiter.CheckN(ctx, "user:42", 7); err != nil {
		fmt.Println(err)
		return
	}
	forecast, err := limiter.Forecast(ctx, "user:42", 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("requests of cost 2 that fit now:", forecast.SpendableNow)
	fmt.Println("full again after:", forecast.FullAt().Sub(time.UnixMilli(1_700_000_000_000)))
	// Output:
	// requests of cost 2 that fit now: 1
	// full again after: 3.5s
}

func ExampleAll() {
	limiter, err := throttlekit.All([]throttlekit.Dimension{
		{Name: "user", Strategy: throttlekit.GCRA{Limit: 2, Period: time.Second}},
		{Name: "tenant", Strategy: throttlekit.FixedWindow{Limit: 1000, Window: time.Hour}},
	}, exampleClock())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limiter.Close()
	keys := throttlekit.Keys{"user": "ann", "tenant": "acme"}
	for range 3 {
		decision, err := limiter.Check(context.Background(), keys, 1)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(decision.Allowed, decision.Dimension, decision.Each[1].Remaining)
	}
	// Output:
	// true user 999
	// true user 998
	// false user 997
}

func ExampleShaper_Wait() {
	shaper, err := throttlekit.NewShaper(throttlekit.LeakyBucket{RatePerSec: 100, MaxQueue: 50 * time.Millisecond})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer shaper.Close()
	for i := range 3 {
		if err := shaper.Wait(context.Background(), "printer", 1); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("page", i)
	}
	// Output:
	// page 0
	// page 1
	// page 2
}

func ExampleNewMemoryStore() {
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{MaxKeys: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	limiter, err := throttlekit.NewLimiter(
		throttlekit.FixedWindow{Limit: 5, Window: time.Hour}, throttlekit.WithStore(store), throttlekit.WithPrefix("prod"))
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = limiter.Check(context.Background(), "a")
	fmt.Println(err)
	_, err = limiter.Check(context.Background(), "b")
	fmt.Println(errors.Is(err, throttlekit.ErrStoreFull))
	// Output:
	// <nil>
	// true
}
