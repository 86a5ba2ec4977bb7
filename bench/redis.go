package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

const (
	redisCallers = 256
	storeKeys    = 1000
	// storeSlice is how many usual slices one of the shared stores is: a call takes a thousand times as long as a check.
	storeSlice = 5
)

// redisRows measure a real redis-server on this machine, which shares its CPUs with the callers.
func redisRows(s measure.Schedule) []report.Row {
	s.Slice, s.Patience = s.Slice*storeSlice, 1 // server and callers stall one another
	ctx := context.Background()
	srv, err := redistest.Start(ctx, redistest.Options{})
	if err != nil {
		return failedRow(err)
	}
	defer func() { _ = srv.Close() }()
	return append(append(redisCrowd(s, srv), redisAlone(s, srv)...), redisServed(s, srv)...)
}

// redisCrowd compares many callers with the peer that most Go programs use.
func redisCrowd(s measure.Schedule, srv *redistest.Server) []report.Row {
	const oursAt, peerAt = 0, 1
	r := measure.Race(s, redisLimiter("redisstore", srv, redisCallers), redisRate("redis_rate", srv, redisCallers))
	return []report.Row{against(r, peerAt, oursAt, "redis gcra, 256 goroutines: throughput / redis_rate's").AtLeast(2).Saying(
		"Checks per second of Limiter.Check on redisstore.Open with its defaults (one per %s) over those of redis_rate v10's Allow on"+
			" go-redis with its defaults (one per %s); %d goroutines over %d keys, every check admitted.",
		perOp(r, oursAt), perOp(r, peerAt), redisCallers, storeKeys)}
}

// redisAlone compares one caller with the least that a script can do.
func redisAlone(s measure.Schedule, srv *redistest.Server) []report.Row {
	const oursAt, floorAt = 0, 1
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{srv.Addr}, DisableCache: true})
	if err != nil {
		return failedRow(err)
	}
	defer client.Close()
	store, err := redisstore.New(client, redisstore.Config{Prefix: "alone", Timeout: time.Minute})
	if err != nil {
		return failedRow(err)
	}
	limiter, err := throttlekit.NewLimiter(storeStrategy, throttlekit.WithStore(store))
	if err != nil {
		return failedRow(err)
	}
	script := rueidis.NewLuaScript(`
		local v = redis.call('GET', KEYS[1])
		redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
		return {v and 1 or 0}`)
	ctx := context.Background()
	r := measure.Race(s,
		measure.Contestant{Name: "check", Run: func(ops int) error { return checks(ctx, limiter, ops, storeKeyNames[:1]) }},
		measure.Contestant{Name: "GET and SET", Run: func(ops int) error {
			for range ops {
				if err := script.Exec(ctx, client, []string{"floor"}, []string{"1700000000000.25", "60000"}).Error(); err != nil {
					return err
				}
			}
			return nil
		}},
	)
	return []report.Row{against(r, oursAt, floorAt, "redis gcra, one goroutine / GET and SET script").AtMost(1.2).Saying(
		"Limiter.Check (%s) against a script of one GET and one SET (%s), one after the other on the same rueidis client.",
		perOp(r, oursAt), perOp(r, floorAt))}
}

// redisServed compares the server on Redis with the server on memory.
func redisServed(s measure.Schedule, srv *redistest.Server) []report.Row {
	const redisAt, memoryAt = 0, 1
	store, err := redisstore.Open(srv.URL(), redisstore.Config{Prefix: "served", Timeout: time.Minute})
	if err != nil {
		return failedRow(err)
	}
	defer func() { _ = store.Close() }()
	shared, err := startOurs(store)
	if err != nil {
		return failedRow(err)
	}
	defer shared.stop()
	private, err := startOurs(nil)
	if err != nil {
		return failedRow(err)
	}
	defer private.stop()
	r := measure.Race(s, loadByClient("on Redis", shared.addr).contestant(), loadByClient("in memory", private.addr).contestant())
	return []report.Row{against(r, memoryAt, redisAt, "gRPC check over Redis, 64 callers: throughput / over memory").AtLeast(0.7).Saying(
		"Calls per second by Go client to a server whose policy is on Redis (one per %s) over those to one in memory (one per %s);"+
			" Redis, server and callers share %d CPUs.", perOp(r, redisAt), perOp(r, memoryAt), runtime.NumCPU())}
}

// storeStrategy admits all that a run can ask for.
var storeStrategy = throttlekit.GCRA{Limit: 1e9, Period: time.Second}

var storeKeyNames = newKeys(storeKeys)

// checks asks a limiter for the keys in turn.
func checks(ctx context.Context, limiter *throttlekit.Limiter, ops int, keys []string) error {
	for i := range ops {
		d, err := limiter.Check(ctx, keys[i%len(keys)])
		if err != nil {
			return err
		}
		if !d.Allowed {
			return errDenied
		}
	}
	return nil
}

func redisLimiter(name string, srv *redistest.Server, callers int) measure.Contestant {
	store, err := redisstore.Open(srv.URL(), redisstore.Config{Prefix: name, Timeout: time.Minute})
	if err != nil {
		return broken(name, err)
	}
	limiter, err := throttlekit.NewLimiter(storeStrategy, throttlekit.WithStore(store))
	if err != nil {
		return broken(name, err)
	}
	ctx := context.Background()
	return measure.Contestant{
		Name:  name,
		Run:   measure.Split(callers, func(ops int) error { return checks(ctx, limiter, ops, storeKeyNames) }),
		Close: func() { _ = store.Close() },
	}
}

func redisRate(name string, srv *redistest.Server, callers int) measure.Contestant {
	client := redis.NewClient(&redis.Options{Addr: srv.Addr})
	limiter := redis_rate.NewLimiter(client)
	limit := redis_rate.Limit{Rate: 1e9, Burst: 1e9, Period: time.Second}
	ctx := context.Background()
	return measure.Contestant{
		Name: name,
		Run: measure.Split(callers, func(ops int) error {
			for i := range ops {
				res, err := limiter.Allow(ctx, storeKeyNames[i%storeKeys], limit)
				if err != nil {
					return fmt.Errorf("redis_rate: %w", err)
				}
				if res.Allowed == 0 {
					return errDenied
				}
			}
			return nil
		}),
		Close: func() { _ = client.Close() },
	}
}
