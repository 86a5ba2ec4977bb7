package budget_test

import (
	"context"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
)

func Example() {
	ctx := context.Background()
	ledger, err := budget.NewLedger(budget.LedgerConfig{Config: budget.Config{
		Budget: &budget.Budget{Windows: []budget.Window{{Limit: 1000, Width: time.Hour}}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ledger.Close()

	lease, err := ledger.Admit(ctx, budget.Request{Key: "alice", Model: "large", Input: 120, MaxOutput: 400})
	if err != nil || !lease.Verdict().Allowed {
		fmt.Println("refused", err)
		return
	}
	defer lease.Close() // settles at what was metered, if nothing better is known
	fmt.Println("let it produce at most", lease.MaxOutput())

	for range 3 { // for each piece of the answer, before it is handed on
		if v, err := lease.Debit(ctx, 17); err != nil || !v.Allowed {
			fmt.Println("cut", err)
			return
		}
	}
	receipt, err := lease.Settle(ctx, budget.Usage{Input: 118, Output: 49})
	fmt.Printf("metered %d, reported %d, given back %d %v\n", receipt.Metered, receipt.Reported, receipt.Refund, err)
	// Output:
	// let it produce at most 400
	// metered 171, reported 167, given back 4 <nil>
}

func ExampleMeter() {
	organisation := &budget.Budget{
		Name:    "org",
		Windows: []budget.Window{{Name: "month", Limit: 1_000_000, Cadence: throttlekit.CalendarMonth, Zone: "Europe/Berlin"}},
	}
	meter, err := budget.NewMeter(budget.Config{
		Budget: &budget.Budget{
			Windows: []budget.Window{
				{Name: "minute", Limit: 100, Width: time.Minute},
				{Name: "day", Limit: 5000, Cadence: throttlekit.CalendarDay, Zone: "Europe/Berlin"},
			},
			Parent: organisation,
		},
		Clock: throttlekit.NewManualClock(1_700_000_000_000),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer meter.Close()
	for range 3 {
		v, err := meter.DebitExplained(context.Background(), "alice", 60)
		fmt.Println(v.Allowed, v.Remaining, v.Level, v.Window, err)
	}
	// Output:
	// true 40 key minute <nil>
	// true 0 key minute <nil>
	// false 0 key minute <nil>
}

func ExampleGranted() {
	ctx := context.Background()
	meter, err := budget.NewMeter(budget.Config{ // usually with a Store that others share
		Budget: &budget.Budget{Windows: []budget.Window{{Limit: 100, Width: time.Hour}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	granted, err := budget.NewGranted(budget.GrantedConfig{Meter: meter, Batch: 64})
	if err != nil {
		fmt.Println(err)
		return
	}
	n := 0
	for range 30 {
		if d, err := granted.Debit(ctx, "alice", 1); err == nil && d.Allowed {
			n++
		}
	}
	held, _ := meter.Peek(ctx, "alice")
	err = granted.Close(ctx)
	left, _ := meter.Peek(ctx, "alice")
	fmt.Println(n, "metered;", held.Remaining, "left for others, then", left.Remaining, err)
	// Output:
	// 30 metered; 36 left for others, then 70 <nil>
}

func ExampleLearned() {
	learned, err := budget.NewLearned(budget.LearnedConfig{HoldCost: 1, OverrunCost: 4, Max: 512})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, cost := range []float64{100, 300, 50, 400} {
		fmt.Print(learned.Reserve(), " ")
		learned.Observe(cost)
	}
	fmt.Println("at the quantile", learned.CriticalFractile())
	// Output:
	// 256 128 490 416 at the quantile 0.8
}
