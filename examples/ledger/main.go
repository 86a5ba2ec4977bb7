// Command ledger admits requests to a model whose answers have a length that nobody knows beforehand. A ledger charges the
// input of a request when it admits it, holds room for the output that it expects, meters the output as it streams, and
// settles by what the provider reports in the end.
//
//	go run ./examples/ledger
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/throttlekit/throttlekit-go/budget"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	// The window is long, so that none ends while the example runs. With a Store, processes share the budget.
	ledger, err := budget.NewLedger(budget.LedgerConfig{
		Config: budget.Config{Budget: &budget.Budget{
			Windows: []budget.Window{{Limit: 100, Width: 10_000 * 24 * time.Hour}},
		}},
		Learning: budget.PredictiveConfig{LearnedConfig: budget.LearnedConfig{Max: 60, Initial: 40}},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()

	// While the first request is under way, the second does not fit beside what the first is expected to use yet.
	first, err := admit(ctx, ledger, "first", 20)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, first.Close()) }() //nolint:contextcheck // it has a deadline of its own
	if _, err := admit(ctx, ledger, "second", 20); err != nil {
		return err
	}
	if err := stream(ctx, first, "first", 3); err != nil {
		return err
	}

	// The first took less than was expected of it, so now the second fits. It goes on and on, until the budget is used up.
	second, err := admit(ctx, ledger, "second", 20)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.Close()) }() //nolint:contextcheck // it has a deadline of its own
	if err := stream(ctx, second, "second", 1000); err != nil {
		return err
	}

	s := ledger.Stats()
	fmt.Printf("%d tokens were used of 100; %d requests were admitted, %d refused, %d cut\n",
		s.Metered-s.Refunded+s.Debt, s.Admitted, s.Refused, s.Cut)
	return nil
}

// admit asks for leave for a request with so many tokens of input.
func admit(ctx context.Context, ledger *budget.Ledger, name string, input int64) (*budget.Lease, error) {
	lease, err := ledger.Admit(ctx, budget.Request{Key: "ann", Model: "simulated", Input: input})
	if err != nil {
		return nil, err
	}
	if lease.Verdict().Allowed {
		fmt.Printf("%s: admitted, with room for %d tokens of output\n", name, lease.MaxOutput())
	} else {
		fmt.Printf("%s: refused, nothing was charged\n", name) // lease.Verdict().RetryAfter() says for how long
	}
	return lease, nil
}

// perPiece is how many tokens a piece of an answer is metered at.
const perPiece = 8

// stream stands in for a model that answers in pieces. One that takes a maximum would be told lease.MaxOutput.
func stream(ctx context.Context, lease *budget.Lease, name string, pieces int64) error {
	var piece int64
	why := "complete"
	for piece < pieces {
		v, err := lease.Debit(ctx, perPiece) // before the piece is handed on
		if err != nil {
			return err
		}
		if !v.Allowed {
			why = "cut, for the budget is used up"
			break
		}
		piece++
	}
	// Providers count more exactly than pieces do: of the latest one, two tokens were not used.
	r, err := lease.Settle(ctx, budget.Usage{Input: 20, Output: piece*perPiece - 2})
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s; %d tokens were metered, %d reported, %d given back\n", name, why, r.Metered, r.Reported, r.Refund)
	return nil
}
