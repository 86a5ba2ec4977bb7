package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/platinummonkey/go-concurrency-limits/limit"
	"github.com/platinummonkey/go-concurrency-limits/limiter"
	"github.com/platinummonkey/go-concurrency-limits/strategy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/admission"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

const (
	guardCallers = 8
	// fewestInFlight is the least limit of all guards, which the callers do not reach.
	fewestInFlight = 64
	mostInFlight   = 512
)

// concurrencyRows measure what a permit costs, by itself, in a fleet, with the other axes, and over gRPC.
func concurrencyRows(s measure.Schedule) []report.Row {
	rows := permitRows(s)
	rows = append(rows, peerPermitRows(s)...)
	rows = append(rows, fleetPermitRow(s), unifiedRow(s))
	rows = append(rows, admitRows(s)...)
	return append(rows, leaseTableRows()...)
}

var roomyGuard = concurrency.Config{MinLimit: fewestInFlight, MaxLimit: mostInFlight}

// permitted takes permits and releases them, on as many goroutines as asked for.
func permitted(name string, goroutines int, take func() bool, closing func()) measure.Contestant {
	run := func(ops int) error {
		for range ops {
			if !take() {
				return errDenied
			}
		}
		return nil
	}
	if goroutines > 1 {
		run = measure.Split(goroutines, run)
	}
	return measure.Contestant{Name: name, Run: run, Close: closing}
}

// guarding takes permits of a guard of ours.
func guarding(goroutines int) measure.Contestant {
	const name = "guard"
	g, err := concurrency.NewGuard(roomyGuard)
	if err != nil {
		return broken(name, err)
	}
	return permitted(name, goroutines, func() bool {
		p := g.TryAcquire()
		p.Release()
		return p.Allowed
	}, nil)
}

// locking takes and gives back a lock so many times, and reads the clock twice.
func locking(name string, pairs, goroutines int) measure.Contestant {
	started := time.Now()
	var mu sync.Mutex
	var guarded time.Duration // a lock guards something
	return permitted(name, goroutines, func() bool {
		began := time.Since(started)
		for range pairs {
			mu.Lock()
			guarded++
			mu.Unlock()
		}
		return time.Since(started) >= began
	}, nil)
}

func permitRows(s measure.Schedule) []report.Row {
	const guardAt, strictAt, looseAt = 0, 1, 2
	r := measure.Race(s, guarding(1), locking("two locks", 2, 1), locking("one lock", 1, 1))
	f, err := measure.Allocations(guarding(1), s.Rounds, 100_000)
	return []report.Row{
		against(r, guardAt, strictAt, "guard permit / (2 lock pairs + 2 clock reads)").AtMost(1).Saying(
			"Guard.TryAcquire and Permit.Release (gradient2; %s) against two times Lock and Unlock of a sync.Mutex and two time.Since"+
				" (%s), which is what a permit cannot do without: it takes a lock twice and reads the clock twice. One goroutine.",
			perOp(r, guardAt), perOp(r, strictAt)),
		against(r, guardAt, looseAt, "guard permit / (1 lock pair + 2 clock reads)").AtMost(2).Saying(
			"The same against Lock and Unlock once and two time.Since (%s): the target read as twice the sum of both.", perOp(r, looseAt)),
		report.Measured("guard permit: allocations", "allocs", f, err).AtMost(0).Saying("Objects made for each TryAcquire and Release."),
	}
}

// failsafes is failsafe-go's adaptive limiter.
func failsafes() measure.Contestant {
	l := adaptivelimiter.NewBuilder[any]().WithLimits(fewestInFlight, mostInFlight, fewestInFlight).Build()
	return permitted("failsafe-go", guardCallers, func() bool {
		p, ok := l.TryAcquirePermit()
		if ok {
			p.Record()
		}
		return ok
	}, nil)
}

// netflixes is a port of Netflix' concurrency-limits, with gradient2 as it has it. A sample that took less than leastRTT
// is not looked at.
func netflixes(name string, leastRTT time.Duration) measure.Contestant {
	const (
		window     = int64(time.Second)
		windowSize = 100
		smoothing  = 0.2
		longWindow = 600
	)
	law, err := limit.NewGradient2Limit(name, fewestInFlight, mostInFlight, fewestInFlight, nil, smoothing, longWindow, nil, nil)
	if err != nil {
		return broken(name, err)
	}
	l, err := limiter.NewDefaultLimiter(
		law, window, window, int64(leastRTT), windowSize, strategy.NewSimpleStrategy(fewestInFlight), limit.NoopLimitLogger{}, nil)
	if err != nil {
		return broken(name, err)
	}
	ctx := context.Background()
	return permitted(name, guardCallers, func() bool {
		p, ok := l.Acquire(ctx)
		if ok {
			p.OnSuccess()
		}
		return ok
	}, nil)
}

func peerPermitRows(s measure.Schedule) []report.Row {
	const guardAt, failsafeAt, netflixAt, wholeAt, locksAt = 0, 1, 2, 3, 4
	const usual = 100 * time.Microsecond // what the port has by default
	s.Patience *= 2                      // two CPUs are seldom free at once
	r := measure.Race(s, guarding(guardCallers), failsafes(), netflixes("as it comes", usual), netflixes("every sample", 0),
		locking("locks", 2, guardCallers))
	how := fmt.Sprintf("%d goroutines take and release permits, of which there are always enough; %d CPUs.", guardCallers, runtime.NumCPU())
	return []report.Row{
		against(r, failsafeAt, guardAt, "guard permits, 8 goroutines: throughput / failsafe-go").AtLeast(2).Saying(
			"%s Ours: one per %s. failsafe-go v0.9.8 adaptivelimiter, its defaults, TryAcquirePermit and Record: one per %s.",
			how, perOp(r, guardAt), perOp(r, failsafeAt)),
		against(r, netflixAt, guardAt, "same / go-concurrency-limits").AtLeast(2).Saying(
			"%s platinummonkey/go-concurrency-limits v0.8.0, DefaultLimiter with gradient2 and its defaults: one per %s. By default it"+
				" ignores requests of less than 100 µs, as all are here, and so does less than ours: it never learns from one.",
			how, perOp(r, netflixAt)),
		against(r, wholeAt, guardAt, "same / go-concurrency-limits that learns").AtLeast(2).Saying(
			"The same with that threshold at 0, so that it takes every request into account, as ours does: one per %s.", perOp(r, wholeAt)),
		against(r, failsafeAt, locksAt, "same: two lock pairs and clock reads alone / failsafe-go").Saying(
			"Two times Lock and Unlock of one sync.Mutex, with an increment under it, and two time.Since: one per %s. No target: what"+
				" there would be to gain if all that a guard does under its lock took no time.", perOp(r, locksAt)),
	}
}

// fleetPermitRow compares a permit of a fleet's guard with one of a guard by itself.
func fleetPermitRow(s measure.Schedule) report.Row {
	const fleetAt, guardAt = 0, 1
	r := measure.Race(s, fleetGuarding(), guarding(1))
	return against(r, fleetAt, guardAt, "fleet guard permit / guard permit").AtMost(1.2).Saying(
		"FleetGuard.TryAcquire and Permit.Release (one node; a beat each second to a store in memory, eager, acknowledged handoff; %s)"+
			" against the same of a Guard (%s). One goroutine.", perOp(r, fleetAt), perOp(r, guardAt))
}

func fleetGuarding() measure.Contestant {
	const name = "fleet guard"
	ceiling, err := concurrency.NewCeiling(concurrency.CeilingConfig{AcknowledgedHandoff: true})
	if err != nil {
		return broken(name, err)
	}
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	if err != nil {
		return broken(name, err)
	}
	f, err := concurrency.NewFleetGuard(concurrency.FleetConfig{
		Local: roomyGuard, Ceiling: ceiling, Store: store, Key: "fleet", Node: "n", Eager: true,
		TTL: time.Minute, // a busy machine must not fence it
	})
	if err != nil {
		return broken(name, err)
	}
	closing := func() { _ = errors.Join(f.Close(), store.Close()) }
	if err := f.Beat(context.Background()); err != nil {
		closing()
		return broken(name, err)
	}
	return permitted(name, 1, func() bool {
		p := f.TryAcquire()
		p.Release()
		return p.Allowed
	}, closing)
}

// unifiedRow compares an admission on two axes with its parts.
func unifiedRow(s measure.Schedule) report.Row {
	const unifiedAt, partsAt = 0, 1
	const name = "Admitter.Admit, guard and rate / its parts"
	var all [2]struct {
		guard   *concurrency.Guard
		store   *throttlekit.MemoryStore
		limiter *throttlekit.Limiter
	}
	for i := range all {
		var err [3]error
		all[i].guard, err[0] = concurrency.NewGuard(roomyGuard)
		all[i].store, err[1] = throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
		if err := errors.Join(err[:]...); err != nil {
			return report.Measured(name, "ratio", measure.Figure{}, err)
		}
		all[i].limiter, err[2] = throttlekit.NewLimiter(roomy, throttlekit.WithStore(all[i].store))
		if err[2] != nil {
			return report.Measured(name, "ratio", measure.Figure{}, err[2])
		}
	}
	admitter, err := admission.New(admission.Config{
		Guard: all[unifiedAt].guard, Rate: &admission.Limit{Strategy: roomy}, Store: all[unifiedAt].store,
	})
	if err != nil {
		return report.Measured(name, "ratio", measure.Figure{}, err)
	}
	ctx := context.Background()
	parts := &all[partsAt]
	r := measure.Race(s,
		permitted("unified", 1, func() bool {
			a, err := admitter.Admit(ctx, admission.Request{Key: "user"})
			a.Release()
			return err == nil && a.Allowed
		}, nil),
		permitted("parts", 1, func() bool {
			p := parts.guard.TryAcquire()
			d, err := parts.limiter.Check(ctx, "user")
			p.Release()
			return err == nil && p.Allowed && d.Allowed
		}, nil),
	)
	return against(r, unifiedAt, partsAt, name).Saying(
		"Admitter.Admit and Admission.Release with a guard and a gcra in memory (%s) against Guard.TryAcquire, Limiter.Check and"+
			" Permit.Release by hand (%s). One goroutine. No target.", perOp(r, unifiedAt), perOp(r, partsAt))
}

const slotPolicy = "limiters: { bench: { concurrency: { minLimit: 1024, maxLimit: 1024 } } }"

// admitRows compare slots asked for and given back over gRPC with calls of an echo.
func admitRows(s measure.Schedule) []report.Row {
	s.Slice, s.Patience = s.Slice*grpcSlice, 1 // its own threads stall one another
	ours, err := startPolicies(slotPolicy, nil)
	if err != nil {
		return failedRow(err)
	}
	defer ours.stop()
	echo, err := startEcho()
	if err != nil {
		return failedRow(err)
	}
	defer echo.stop()
	const admitByClient, echoByClient, admitByStub, echoByStub = 0, 1, 2, 3
	r := measure.Race(s,
		admitByClientLoad(ours.addr).contestant(), loadByClient("echo, Go client", echo.addr).contestant(),
		admitByStubLoad(ours.addr).contestant(), loadByStub("echo, stub", echo.addr).contestant(),
	)
	row := func(i, j int, name string) report.Row {
		return against(r, j, i, "Admit + Release, 64 callers: pairs / echo calls, "+name).AtLeast(0.45).Saying(
			"%d callers on one connection over loopback, one process, %d CPUs. Pairs of an Admit and the Release of its lease per second"+
				" (one per %s) over calls per second of a bare grpc-go echo (one per %s). Two calls, each as cheap as the echo, would come"+
				" to 0.5.", callers, runtime.NumCPU(), perOp(r, i), perOp(r, j))
	}
	return []report.Row{row(admitByClient, echoByClient, "by Go client"), row(admitByStub, echoByStub, "by generated stub")}
}

func admitByClientLoad(addr string) *load {
	const name = "admit, Go client"
	c, err := client.Dial(addr)
	if err != nil {
		return &load{name: name, err: err}
	}
	return &load{name: name, close: c.Close, call: func(ctx context.Context, key string) (bool, error) {
		a, err := c.Admit(ctx, benchPolicy, key)
		if err != nil {
			return false, err
		}
		return a.Held(), a.Release() //nolint:contextcheck // it has a deadline of its own
	}}
}

func admitByStubLoad(addr string) *load {
	const name = "admit, stub"
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return &load{name: name, err: err}
	}
	stub := throttlekitv1.NewRateLimiterClient(conn)
	return &load{name: name, close: conn.Close, call: func(ctx context.Context, key string) (bool, error) {
		res, err := stub.Admit(ctx, &throttlekitv1.AdmitRequest{Policy: benchPolicy, Key: key, Cost: 1, Value: 1})
		if err != nil {
			return false, err
		}
		_, err = stub.Release(ctx, &throttlekitv1.ReleaseRequest{LeaseId: res.GetLeaseId()})
		return res.GetDecision().GetAllowed() && res.GetLeaseId() != "", err
	}}
}
