package admission_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/admission"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

// A model server bears so many requests at once; each tenant may ask twice a second, and for so many
// tokens in a minute. The answer says which of the three was in the way.
func ExampleAdmitter() {
	guard, err := concurrency.NewGuard(concurrency.Config{MinLimit: 4, MaxLimit: 64})
	if err != nil {
		fmt.Println(err)
		return
	}
	clock := throttlekit.NewManualClock(0) // stands still, so that the output is the same every time
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = store.Close() }()
	admitter, err := admission.New(admission.Config{
		Guard: guard,
		Store: store,
		Rate:  &admission.Limit{Strategy: throttlekit.GCRA{Limit: 2, Period: time.Second}, Prefix: "rate"},
		Cost:  &admission.Limit{Strategy: throttlekit.TokenBucket{Capacity: 1000, RefillPerSec: 1000.0 / 60}, Prefix: "tokens"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ask := func(tenant string, tokens float64, work func() error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		adm, err := admitter.Admit(ctx, admission.Request{Key: tenant, Cost: tokens})
		switch {
		case err != nil:
			fmt.Println(err)
			return
		case !adm.Allowed:
			fmt.Printf("%s: denied by %s, try again in %v\n", tenant, adm.Binding, adm.RetryAfter())
			return
		}
		defer adm.Cancel() // if the work panics; does nothing after another ending
		if err := work(); errors.Is(err, context.DeadlineExceeded) {
			adm.Drop()
			return
		}
		adm.Release()
		fmt.Printf("%s: done, %d left\n", tenant, adm.Remaining)
	}
	work := func() error { return nil }
	ask("a", 400, work)
	ask("a", 700, work) // charges nothing, also not the rate
	ask("a", 600, work)
	ask("a", 1, work)
	ask("b", 1, work)
	fmt.Println(guard.Stats().InFlight, "under way")
	// Output:
	// a: done, 1 left
	// a: denied by cost, try again in 6s
	// a: done, 0 left
	// a: denied by rate, try again in 500ms
	// b: done, 1 left
	// 0 under way
}

// There is room for 50 units of cost. Half of what comes costs 100 and is worth 1, the other half costs
// 10,000 and is worth 50: less for its cost. The price keeps it out before it has used anything up.
func ExamplePrice() {
	workload := admission.Workload{Rate: 1, Cost: 50, Types: []admission.Type{
		{Cost: 100, Value: 1, Weight: 0.5},
		{Cost: 10_000, Value: 50, Weight: 0.5},
	}}
	solution, err := workload.Solve()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("plan", solution.Plan, "worth", solution.Objective)

	price, err := admission.NewPrice(admission.PriceConfig{Workload: &workload, SampleWindow: 1000})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("a request that costs 10,000 must be worth", price.Duals().Bid(10_000, 0))
	// Output:
	// plan [1 0] worth 0.5
	// a request that costs 10,000 must be worth 100
}

// Decisions of limits that know nothing of each other can be combined as well.
func ExampleCombine() {
	user := throttlekit.Decision{Allowed: true, Limit: 100, Remaining: 7, ResetAtMillis: 60_000}
	address := throttlekit.Decision{Limit: 20, ResetAtMillis: 2000, RetryAfterMillis: 500}
	fmt.Printf("%+v\n", admission.Combine(user, address))
	// Output: {Allowed:false Limit:20 Remaining:0 ResetAtMillis:60000 RetryAfterMillis:500}
}
