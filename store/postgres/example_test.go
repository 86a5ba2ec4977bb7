package pgstore_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	throttlekit "github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
)

// A program that only limits opens the store by a URL.
func ExampleOpen() {
	ctx := context.Background()
	url := server.URL() // such as "postgres://app@db.internal/app"
	store, err := pgstore.Open(url, pgstore.Config{Table: "example_open", Timeout: 5 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	limiter, err := throttlekit.NewLimiter(throttlekit.GCRA{Limit: 2, Period: time.Hour},
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

// A program that has a pool lends it. Limits over several keys are one atomic step.
func ExampleNew() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, server.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()

	store, err := pgstore.New(pool, pgstore.Config{Table: "example_new", Prefix: "prod", Timeout: 5 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	limiter, err := throttlekit.All([]throttlekit.Dimension{
		{Name: "user", Strategy: throttlekit.FixedWindow{Limit: 10, Window: 1000 * time.Hour}},
		{Name: "company", Strategy: throttlekit.FixedWindow{Limit: 100, Window: 1000 * time.Hour}},
	}, throttlekit.WithStore(store))
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := limiter.Check(ctx, throttlekit.Keys{"user": "42", "company": "acme"}, 3)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Allowed, d.Dimension, d.Remaining)
	// Output: true user 7
}

// Where programs may not create tables, an operator runs the schema once.
func ExampleConfig_Schema() {
	sql, err := pgstore.Config{Table: "limits.throttlekit"}.Schema()
	if err != nil {
		fmt.Println(err)
		return
	}
	table, _, _ := strings.Cut(sql, ";")
	fmt.Println(table)
	// Output: CREATE TABLE IF NOT EXISTS "limits"."throttlekit" (key text PRIMARY KEY, state text NOT NULL, expires_at bigint NOT NULL)
}
