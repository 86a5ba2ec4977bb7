package goredis_test

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/store/redis/goredis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// A program lends the client that it has already.
func Example() {
	ctx := context.Background()
	server, err := redistest.Start(ctx, redistest.Options{}) // in production, a server that is there already
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
	defer client.Close()

	store, err := goredis.New(client, goredis.Config{Prefix: "shop", Timeout: time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	limiter, err := throttlekit.NewLimiter(
		throttlekit.TokenBucket{Capacity: 2, RefillPerSec: 0.001}, throttlekit.WithStore(store))
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		decision, err := limiter.Check(ctx, "user:42")
		fmt.Println(decision.Allowed, decision.Remaining, err)
	}
	// Output:
	// true 1 <nil>
	// true 0 <nil>
	// false 0 <nil>
}
