package concurrency_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

// A guard around a call. How the call ended decides what the guard learns.
func ExampleGuard() {
	guard, err := concurrency.NewGuard(concurrency.Config{MaxLimit: 100, Queue: 50})
	if err != nil {
		fmt.Println(err)
		return
	}
	call := func(ctx context.Context, backend func(context.Context) error) error {
		permit, err := guard.Acquire(ctx) // waits if all permits are taken
		switch {
		case err != nil:
			return err
		case !permit.Allowed: // and the queue is full
			return fmt.Errorf("busy: %d of %d in flight", permit.InFlight, permit.Limit)
		}
		defer permit.Cancel() // if the backend panics; does nothing after another ending
		err = backend(ctx)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			permit.Drop()
		case errors.Is(err, context.Canceled):
			permit.Cancel()
		default:
			permit.Release()
		}
		return err
	}
	fmt.Println(call(context.Background(), func(context.Context) error { return nil }))
	fmt.Println(call(context.Background(), func(context.Context) error { return context.DeadlineExceeded }))
	fmt.Println(guard.Stats().InFlight, "in flight")
	// Output:
	// <nil>
	// context deadline exceeded
	// 0 in flight
}

// A limit follows from what requests tell: here four that are done, and one that failed.
func ExamplePermit() {
	var now time.Duration // a clock that stands still makes the output the same every time
	guard, err := concurrency.NewGuard(concurrency.Config{
		Algorithm: concurrency.AIMD, InitialLimit: 10, MinLimit: 1, Elapsed: func() time.Duration { return now },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 6 {
		guard.TryAcquire() // others, which keep the guard busy
	}
	for range 4 {
		permit := guard.TryAcquire()
		now += 10 * time.Millisecond
		permit.Release()
	}
	fmt.Println("limit", guard.Stats().Limit)
	failed := guard.TryAcquire()
	failed.Drop()
	failed.Drop() // it has ended
	fmt.Println("limit", guard.Stats().Limit)
	guard.TryAcquire().Cancel()
	fmt.Println("limit", guard.Stats().Limit)
	// Output:
	// limit 14
	// limit 12
	// limit 12
}

// Requests of customers wait less long than those of a batch job.
func ExampleGuard_AcquirePriority() {
	guard, err := concurrency.NewGuard(concurrency.Config{Queue: 100})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	permit, err := guard.AcquirePriority(ctx, concurrency.High)
	fmt.Println(permit.Allowed, err)
	permit.Release()
	// Output: true <nil>
}

// Two nodes share a backend that bears ten requests. In production the store is a shared one, such
// as Redis, each node is a process, and beats come by themselves; here they are sent by hand, so that
// the output is the same every time.
func ExampleFleetGuard() {
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ceiling, err := concurrency.NewCeiling(concurrency.CeilingConfig{AcknowledgedHandoff: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	join := func(name string) *concurrency.FleetGuard {
		node, err := concurrency.NewFleetGuard(concurrency.FleetConfig{
			Local:   concurrency.Config{MinLimit: 10, MaxLimit: 10},
			Ceiling: ceiling, Store: store, Key: concurrency.CeilingKey(concurrency.DefaultCeilingPrefix, "backend"), Node: name,
			Heartbeat: time.Minute,
			OnFence:   func() { fmt.Println("cut off: abort what is under way") },
			OnError:   func(err error) { fmt.Println(err) },
		})
		if err != nil {
			fmt.Println(err)
			return nil
		}
		_ = node.Beat(context.Background()) // OnError tells
		fmt.Println(name, "joins and gets", node.Stats().Share)
		return node
	}
	a, b := join("a"), join("b")
	if a == nil || b == nil {
		return
	}
	for _, node := range []*concurrency.FleetGuard{a, a, b} { // a hears of b, and says that it has; b gets its part
		_ = node.Beat(context.Background())
	}
	fmt.Println("a has", a.Stats().Share, "and b", b.Stats().Share)
	permit := b.TryAcquire()
	fmt.Println(permit.Allowed, permit.Limit)
	permit.Release()
	fmt.Println(a.Close(), b.Close())
	// Output:
	// a joins and gets 10
	// b joins and gets 0
	// a has 5 and b 5
	// true 5
	// <nil> <nil>
}
