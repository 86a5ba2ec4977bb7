package redisstore_test

import (
	"context"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// Two processes, each with a store of its own, share one limit.
func Example() {
	ctx := context.Background()
	server, err := redistest.Start(ctx, redistest.Options{}) // in production, a server that is there already
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	var limiters []*throttlekit.Limiter
	for range 2 {
		store, err := redisstore.Open(server.URL(), redisstore.Config{Timeout: time.Second})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer store.Close() //nolint:gocritic // both stay open until the end
		limiter, err := throttlekit.NewLimiter(
			throttlekit.FixedWindow{Limit: 3, Window: 100 * 365 * 24 * time.Hour},
			throttlekit.WithStore(store), throttlekit.WithPrefix("prod"))
		if err != nil {
			fmt.Println(err)
			return
		}
		limiters = append(limiters, limiter)
	}
	for i := range 4 {
		decision, err := limiters[i%2].Check(ctx, "user:42")
		fmt.Println(decision.Allowed, decision.Remaining, err)
	}
	// Output:
	// true 2 <nil>
	// true 1 <nil>
	// true 0 <nil>
	// false 0 <nil>
}

// One request counts against two limits, or against none. On a Cluster, the common tag in
// braces keeps both keys on one server.
func Example_all() {
	ctx := context.Background()
	server, err := redistest.Start(ctx, redistest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	store, err := redisstore.Open(server.URL(), redisstore.Config{Prefix: "shop", Timeout: time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	limiter, err := throttlekit.All([]throttlekit.Dimension{
		{Name: "user", Strategy: throttlekit.FixedWindow{Limit: 2, Window: 100 * 365 * 24 * time.Hour}},
		{Name: "tenant", Strategy: throttlekit.TokenBucket{Capacity: 100, RefillPerSec: 0.001}},
	}, throttlekit.WithStore(store))
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		decision, err := limiter.Check(ctx, throttlekit.Keys{"user": "{acme}/42", "tenant": "{acme}"}, 1)
		fmt.Println(decision.Allowed, decision.Dimension, decision.Remaining, err)
	}
	// Output:
	// true user 1 <nil>
	// true user 0 <nil>
	// false user 0 <nil>
}
