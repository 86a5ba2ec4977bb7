package fair_test

import (
	"context"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/fair"
)

// A clock that stands still makes the examples' output the same every time.
func clock() throttlekit.Clock { return throttlekit.NewManualClock(1_700_000_000_000) }

func ExampleNewEscrow() {
	weights, err := fair.Weights(map[string]float64{"gold": 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	escrow, err := fair.NewEscrow(fair.EscrowConfig{Limit: 10, Window: time.Second, WeightOf: weights, Clock: clock()})
	if err != nil {
		fmt.Println(err)
		return
	}
	got := map[string]int{}
	for range 10 {
		for _, tenant := range []string{"gold", "free"} {
			decision, err := escrow.Check(context.Background(), tenant)
			if err != nil {
				fmt.Println(err)
				return
			}
			if decision.Allowed {
				got[tenant]++
			}
		}
	}
	fmt.Println("gold", got["gold"], "free", got["free"])
	// Output: gold 8 free 2
}

func ExampleNewFederatedEscrow() {
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock()}) // a shared store in real life
	if err != nil {
		fmt.Println(err)
		return
	}
	pool, err := fair.NewRegionPool(fair.PoolConfig{Limit: 100, Window: time.Minute})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, region := range []string{"eu", "us"} {
		escrow, err := fair.NewFederatedEscrow(fair.FederatedConfig{
			Region: region, Pool: pool, Store: store, Key: fair.DefaultPoolPrefix + ":api",
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		admitted := 0
		for range 70 {
			decision, err := escrow.Check(context.Background(), "tenant of "+region)
			if err != nil {
				fmt.Println(err)
				return
			}
			if decision.Allowed {
				admitted++
			}
		}
		fmt.Println(region, admitted)
	}
	// Output:
	// eu 70
	// us 30
}

func ExampleMaxMin() {
	shares, err := fair.MaxMin([]float64{5, 100, 100}, []float64{1, 1, 2}, 50)
	fmt.Println(shares, err)
	// Output: [5 15 30] <nil>
}

func ExampleFairShare() {
	limiter, err := fair.NewFairShare(fair.ShareConfig{Limit: 9, Window: time.Second, Clock: clock()})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, tenant := range []string{"a", "b", "c"} {
		decision, err := limiter.CheckN(context.Background(), tenant, 3)
		fmt.Println(decision.Allowed, decision.Limit, err)
	}
	// Output:
	// true 9 <nil>
	// true 4 <nil>
	// true 3 <nil>
}
