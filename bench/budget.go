package main

import (
	"context"
	"slices"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
	"github.com/throttlekit/throttlekit-go/budget"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

const (
	budgetBatch   = 256 // tokens of a grant
	budgetCallers = 8
	ample         = 1 << 52
)

// budgetRows measure what metering tokens costs, on a real redis-server where a store is needed.
func budgetRows(s measure.Schedule) []report.Row {
	rows := append([]report.Row{debitRow(s)}, settleRow(s))
	ctx := context.Background()
	srv, err := redistest.Start(ctx, redistest.Options{})
	if err != nil {
		return append(rows, failedRow(err)...)
	}
	defer func() { _ = srv.Close() }()
	store, err := redisstore.Open(srv.URL(), redisstore.Config{Prefix: "budget", Timeout: time.Minute})
	if err != nil {
		return append(rows, failedRow(err)...)
	}
	defer func() { _ = store.Close() }()
	s.Slice, s.Patience = s.Slice*storeSlice, 1 // server and callers stall one another
	return append(rows, grantedRows(s, store)...)
}

func ampleBudget() *budget.Budget {
	return &budget.Budget{Windows: []budget.Window{{Limit: ample, Width: time.Hour}}}
}

// debiting meters one token at a time.
func debiting(
	name string, callers int, debit func(ctx context.Context, key string, tokens int64) (throttlekit.Decision, error),
) measure.Contestant {
	ctx := context.Background()
	return measure.Contestant{Name: name, Run: measure.Split(callers, func(ops int) error {
		for range ops {
			d, err := debit(ctx, "tenant", 1)
			if err != nil {
				return err
			}
			if !d.Allowed {
				return errDenied
			}
		}
		return nil
	})}
}

func debitRow(s measure.Schedule) report.Row {
	const debitAt, checkAt = 0, 1
	const name = "Meter.Debit / gcra check"
	m, err := budget.NewMeter(budget.Config{Budget: ampleBudget()})
	if err != nil {
		return report.Measured(name, "ratio", measure.Figure{}, err)
	}
	defer func() { _ = m.Close() }()
	r := measure.Race(s, debiting("debit", 1, m.Debit), ours("gcra", roomy, nil, newWorkload(1)))
	return against(r, debitAt, checkAt, name).AtMost(0.8).Saying(
		"Meter.Debit of one token (one hour's budget, one key, in the process; %s) against Limiter.Check (gcra, memory store, one"+
			" key; %s). Both read the clock. One goroutine.", perOp(r, debitAt), perOp(r, checkAt))
}

func settleRow(s measure.Schedule) report.Row {
	const settleAt, checkAt = 0, 1
	const name = "Ledger.Admit and Lease.Settle / gcra check"
	l, err := budget.NewLedger(budget.LedgerConfig{Config: budget.Config{Budget: ampleBudget()}})
	if err != nil {
		return report.Measured(name, "ratio", measure.Figure{}, err)
	}
	defer func() { _ = l.Close() }()
	ctx := context.Background()
	r := measure.Race(s,
		measure.Contestant{Name: "settle", Run: func(ops int) error {
			for range ops {
				lease, err := l.Admit(ctx, budget.Request{Key: "tenant", Model: "m", Input: 10, MaxOutput: 100})
				if err != nil {
					return err
				}
				if !lease.Verdict().Allowed {
					return errDenied
				}
				if _, err := lease.Settle(ctx, budget.Usage{Input: 10}); err != nil {
					return err
				}
			}
			return nil
		}},
		ours("gcra", roomy, nil, newWorkload(1)),
	)
	return against(r, settleAt, checkAt, name).AtMost(6).Saying(
		"One reservation admitted and settled (in the process, one key; %s together) against Limiter.Check (gcra, memory store, one"+
			" key; %s). One goroutine.", perOp(r, settleAt), perOp(r, checkAt))
}

// grantedRows compare a meter that draws grants from Redis with one that asks it for each token.
func grantedRows(s measure.Schedule, store throttlekit.Store) []report.Row {
	const grantedAt, plainAt = 0, 1
	const name = "granted metering over Redis, one hot key: throughput / plain shared debits"
	m, err := budget.NewMeter(budget.Config{Budget: ampleBudget(), Store: store})
	if err != nil {
		return failedRow(err)
	}
	defer func() { _ = m.Close() }()
	g, err := budget.NewGranted(budget.GrantedConfig{Meter: m, Batch: budgetBatch, LowWater: budgetBatch})
	if err != nil {
		return failedRow(err)
	}
	defer func() { _ = g.Close(context.Background()) }()
	r := measure.Race(s, debiting("granted", budgetCallers, g.Debit), debiting("plain", budgetCallers, m.Debit))
	f, err := slowest(g)
	return []report.Row{
		against(r, plainAt, grantedAt, name).AtLeast(20).Saying(
			"Granted.Debit of one token from %d goroutines, drawn from Redis in grants of %d ahead of need (one per %s), against"+
				" Meter.Debit on the same store, a round trip each (one per %s).",
			budgetCallers, budgetBatch, perOp(r, grantedAt), perOp(r, plainAt)),
		report.Measured("same: p99 of a local debit", "µs", f, err).AtMost(10).Saying(
			"The time of single calls of Granted.Debit, one goroutine that asks for a token every few microseconds, those that wait for a" +
				" grant included."),
	}
}

// slowest is the 99th percentile of single debits.
func slowest(g *budget.Granted) (measure.Figure, error) {
	const rounds, calls = 5, 20_000
	ctx := context.Background()
	samples := make([]float64, 0, rounds)
	for range rounds {
		took := make([]float64, calls)
		for i := range took {
			began := time.Now()
			if _, err := g.Debit(ctx, "tenant", 1); err != nil {
				return measure.Figure{}, err
			}
			took[i] = float64(time.Since(began)) / float64(time.Microsecond)
			for time.Since(began) < 5*time.Microsecond { // what a model takes for a token is a thousand times longer
				continue
			}
		}
		slices.Sort(took)
		samples = append(samples, measure.Quantile(took, 0.99))
	}
	return measure.Summarize(samples), nil
}
