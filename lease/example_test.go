package lease_test

import (
	"context"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
)

// Two processes share a limit of 100 per minute and pay one round trip for ten requests.
func ExampleNewTwoTier() {
	shared, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: throttlekit.NewManualClock(0)})
	if err != nil {
		fmt.Println(err)
		return
	}
	config := lease.TwoTierConfig{
		Strategy:      throttlekit.FixedWindow{Limit: 100, Window: time.Minute},
		Store:         shared, // in a fleet: a store that its processes share, such as Redis
		Batch:         10,
		WindowCoupled: true, // no minute ever admits more than 100
	}
	admitted := 0
	for range 2 {
		process, err := lease.NewTwoTier(config)
		if err != nil {
			fmt.Println(err)
			return
		}
		for range 80 {
			d, err := process.Check(context.Background(), "tenant")
			if err != nil {
				fmt.Println(err)
				return
			}
			if d.Allowed {
				admitted++
			}
		}
	}
	fmt.Println(admitted, "admitted")
	// Output: 100 admitted
}

// A rate without windows can be leased as well: the burst pays for the time for which
// leased units may lie around.
func ExampleTwoTierConfig_expireAfter() {
	shared, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = lease.NewTwoTier(lease.TwoTierConfig{
		Strategy:    throttlekit.GCRA{Limit: 100, Period: time.Second, Burst: 50},
		Store:       shared,
		Batch:       10,
		ExpireAfter: time.Second,
	})
	fmt.Println(err)
	// Output: expireAfter must be at most 490ms: a burst of 50 has to pay for it with 100 units and keep 1, got 1s
}

// A spender is told about grants and time, and asks nobody.
func ExampleSpender() {
	s, err := lease.NewSpender(lease.SpenderConfig{Limit: 100})
	if err != nil {
		fmt.Println(err)
		return
	}
	s.Grant(2, 1000) // two units that may be spent before 1000
	for _, now := range []int64{0, 500, 999} {
		d, ok := s.Spend(now, 1)
		fmt.Println(ok, d.Remaining)
	}
	// Output:
	// true 1
	// true 0
	// false 0
}

// The members of a fleet share one budget through a coordinator, which any store can be.
func ExampleNewFederated() {
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: throttlekit.NewManualClock(0)})
	if err != nil {
		fmt.Println(err)
		return
	}
	coordinator, err := lease.NewCoordinator(lease.CoordinatorConfig{
		Strategy: throttlekit.FixedWindow{Limit: 20, Window: time.Minute}, Store: store,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	admitted := 0
	for range 3 {
		member, err := lease.NewFederated(lease.FederatedConfig{Coordinator: coordinator, Batch: 4})
		if err != nil {
			fmt.Println(err)
			return
		}
		for range 10 {
			if d, err := member.Check(context.Background(), "tenant"); err == nil && d.Allowed {
				admitted++
			}
		}
		if err := member.Close(); err != nil { // gives back what it did not use
			fmt.Println(err)
			return
		}
	}
	fmt.Println(admitted, "admitted")
	// Output: 20 admitted
}
