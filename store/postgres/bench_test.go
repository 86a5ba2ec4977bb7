package pgstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
)

// Sixteen connections, a thousand keys. BareUpsert is the least that any limiter on
// PostgreSQL does: it overwrites one row of a table like ours, and decides nothing.

const benchKeys = 1000

func benchPool(b *testing.B, each func(ctx context.Context, key string) error) {
	b.Helper()
	keys := make([]string, benchKeys)
	for i := range keys {
		keys[i] = fmt.Sprint("user:", i)
	}
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := each(b.Context(), keys[rand.IntN(benchKeys)]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkBareUpsert(b *testing.B) {
	pool := warmPool(b, "pool_max_conns=16")
	table := newTable()
	if err := newStore(b, pool, pgstore.Config{Table: table}).Prepare(b.Context()); err != nil {
		b.Fatal(err)
	}
	sql := `INSERT INTO ` + table + ` (key, state, expires_at) VALUES ($1, $2, $3)` +
		` ON CONFLICT (key) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at`
	benchPool(b, func(ctx context.Context, key string) error {
		_, err := pool.Exec(ctx, sql, key, "1700000000000.25", time.Now().UnixMilli())
		return err
	})
}

func benchStrategy(b *testing.B, s throttlekit.Strategy) {
	b.Helper()
	store := newStore(b, warmPool(b, "pool_max_conns=16"), pgstore.Config{})
	r := rule(b, s)
	benchPool(b, func(ctx context.Context, key string) error {
		_, err := store.Apply(ctx, key, r, 1)
		return err
	})
}

func BenchmarkGCRA(b *testing.B) {
	benchStrategy(b, throttlekit.GCRA{Limit: 1e9, Period: time.Hour})
}

func BenchmarkGCRADenied(b *testing.B) {
	benchStrategy(b, throttlekit.GCRA{Limit: 1, Period: 1000 * time.Hour})
}

func BenchmarkTokenBucket(b *testing.B) {
	benchStrategy(b, throttlekit.TokenBucket{Capacity: 1e9, RefillPerSec: 1e6})
}

func BenchmarkFixedWindow(b *testing.B) {
	benchStrategy(b, throttlekit.FixedWindow{Limit: 1e9, Window: time.Hour})
}

func BenchmarkSlidingWindow(b *testing.B) {
	benchStrategy(b, throttlekit.SlidingWindow{Limit: 1e9, Window: time.Hour})
}

func BenchmarkCheckMany(b *testing.B) {
	store := newStore(b, warmPool(b, "pool_max_conns=16"), pgstore.Config{})
	r := rule(b, throttlekit.GCRA{Limit: 1e9, Period: time.Hour})
	ops := make([]throttlekit.Op, 50)
	for i := range ops {
		ops[i] = throttlekit.Op{Key: fmt.Sprint("user:", i), Transition: r, Cost: 1}
	}
	for b.Loop() {
		if _, err := store.Batch(b.Context(), ops, throttlekit.CommitEach); err != nil {
			b.Fatal(err)
		}
	}
}
