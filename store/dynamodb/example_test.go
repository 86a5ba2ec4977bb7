package dynamostore_test

import (
	"context"
	"fmt"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
	dynamostore "github.com/throttlekit/throttlekit-go/store/dynamodb"
)

// A fleet shares a limit in a table, which the first program to start creates.
func Example() {
	ctx := context.Background()
	client, done := connect(server, nil) // or dynamodb.NewFromConfig
	defer done()

	config := dynamostore.Config{Table: "example", Prefix: "prod", Timeout: 5 * time.Second}
	if err := dynamostore.CreateTable(ctx, client, config); err != nil {
		fmt.Println(err)
		return
	}
	store, err := dynamostore.New(client, config)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	limiter, err := throttlekit.NewLimiter(throttlekit.TokenBucket{Capacity: 2, RefillPerSec: 0.001},
		throttlekit.WithStore(store), throttlekit.WithPrefix("api"))
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		d, err := limiter.Check(ctx, "user:42")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(d.Allowed, d.Remaining)
	}
	// Output:
	// true 1
	// true 0
	// false 0
}
