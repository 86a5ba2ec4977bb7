package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
)

// floor is the script that every shared limiter costs at least: one GET and one SET.
var floor = rueidis.NewLuaScript(`local v = redis.call('GET', KEYS[1]) redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return {v and 1 or 0}`)

// BenchmarkOneCaller compares, in turn and on one client, a check with that script.
func BenchmarkOneCaller(b *testing.B) {
	client := newClient(b, shared)
	store := lend(b, client, redisstore.Config{Prefix: freshPrefix()})
	rule := ruleOf(b, throttlekit.GCRA{Limit: 1e9, Period: time.Second})
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	args := []string{"1700000000000.25", "1000"}
	keys := []string{freshPrefix()}
	calls := map[string]func() error{
		"floor":   func() error { return floor.Exec(ctx, client, keys, args).Error() },
		"check":   func() error { return second(store.Apply(ctx, "k", rule, 1)) },
		"timeout": func() error { return second(store.Apply(context.Background(), "k", rule, 1)) }, //nolint:usetesting // one without an end
	}
	took := map[string][]time.Duration{}
	b.ResetTimer()
	for range b.N {
		for name, call := range calls {
			start := time.Now()
			if err := call(); err != nil {
				b.Fatal(err)
			}
			took[name] = append(took[name], time.Since(start))
		}
	}
	for name, all := range took {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1000, name+"-µs")
	}
}

// BenchmarkCheck is one call of one goroutine, with its allocations.
func BenchmarkCheck(b *testing.B) {
	store := open(b, shared.URL(), redisstore.Config{Timeout: usualDeadline})
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	for _, strategy := range []throttlekit.Strategy{
		throttlekit.GCRA{Limit: 1e9, Period: time.Second},
		throttlekit.TokenBucket{Capacity: 1e9, RefillPerSec: 1e9},
		throttlekit.FixedWindow{Limit: 1e9, Window: time.Second},
		throttlekit.SlidingWindow{Limit: 1e9, Window: time.Second},
		throttlekit.SlidingWindowLog{Limit: 100, Window: time.Second},
		throttlekit.Quota{Limit: 1e9, Cadence: throttlekit.CalendarMonth},
	} {
		rule := ruleOf(b, strategy)
		b.Run(rule.Name(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := store.Apply(ctx, rule.Name(), rule, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCrowd is 256 goroutines over 1,000 keys.
func BenchmarkCrowd(b *testing.B) {
	for name, ctx := range map[string]func() (context.Context, context.CancelFunc){
		"deadline": func() (context.Context, context.CancelFunc) { return context.WithTimeout(b.Context(), time.Hour) },
		"none":     func() (context.Context, context.CancelFunc) { return context.Background(), func() {} }, //nolint:usetesting // one without an end
	} {
		b.Run(name, func(b *testing.B) {
			store := open(b, shared.URL(), redisstore.Config{Timeout: usualDeadline})
			rule := ruleOf(b, throttlekit.GCRA{Limit: 1e9, Period: time.Second})
			keys := make([]string, 1000)
			for i := range keys {
				keys[i] = fmt.Sprint("user:", i)
			}
			ctx, cancel := ctx()
			defer cancel()
			var next atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(128)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := store.Apply(ctx, keys[next.Add(1)%1000], rule, 1); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
