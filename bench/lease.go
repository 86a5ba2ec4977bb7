package main

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
	"github.com/throttlekit/throttlekit-go/lease"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

const (
	leaseBatch   = 100
	leaseCallers = 8
)

// leaseRows measure what leasing saves, on a real redis-server where a store is needed.
func leaseRows(s measure.Schedule) []report.Row {
	rows := []report.Row{spendRow(s), fleetRow(s)}
	ctx := context.Background()
	srv, err := redistest.Start(ctx, redistest.Options{})
	if err != nil {
		return append(rows, failedRow(err)...)
	}
	defer func() { _ = srv.Close() }()
	store, err := redisstore.Open(srv.URL(), redisstore.Config{Prefix: "lease", Timeout: time.Minute})
	if err != nil {
		return append(rows, failedRow(err)...)
	}
	defer func() { _ = store.Close() }()
	s.Slice, s.Patience = s.Slice*storeSlice, 1 // server and callers stall one another
	return append(append(rows, twoTierRows(s, store)...), grantRow(s, store))
}

// spendRow compares handing out a leased unit with a check.
func spendRow(s measure.Schedule) report.Row {
	const spendAt, checkAt = 0, 1
	r := measure.Race(s, spending(), ours("gcra", roomy, nil, newWorkload(1)))
	return against(r, spendAt, checkAt, "Spender.Spend / gcra check").AtMost(0.15).Saying(
		"Spender.Spend of one unit (%s) against Limiter.Check (gcra, memory store, one key; %s), which also reads the clock."+
			" One goroutine.",
		perOp(r, spendAt), perOp(r, checkAt))
}

var errShort = errors.New("a spender ran short")

func spending() measure.Contestant {
	const name = "spend"
	spender, err := lease.NewSpender(lease.SpenderConfig{Limit: 1000})
	if err != nil {
		return broken(name, err)
	}
	return measure.Contestant{Name: name, Run: func(ops int) error {
		spender.Reset()
		spender.Grant(float64(ops)+1, math.MaxInt64)
		for now := range int64(ops) {
			if _, ok := spender.Spend(now, 1); !ok {
				return errShort
			}
		}
		return nil
	}}
}

// counted is a store that counts the round trips of leases.
type counted struct {
	throttlekit.Store

	trips atomic.Int64
}

func (c *counted) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	c.trips.Add(1)
	return c.Store.Apply(ctx, key, t, cost)
}

// twoTierRows compare a leased limiter with one that asks Redis each time.
func twoTierRows(s measure.Schedule, store throttlekit.Store) []report.Row {
	const leasedAt, strictAt = 0, 1
	counting := &counted{Store: store}
	var asked atomic.Int64
	leased := twoTier("leased", counting, lease.Leased, 1)
	run := leased.Run
	leased.Run = func(ops int) error {
		asked.Add(int64(ops))
		return run(ops)
	}
	r := measure.Race(s, leased, twoTier("strict", store, lease.Strict, 1))
	crowd := measure.Race(s, twoTier("crowd", store, lease.Leased, leaseCallers), twoTier("strict", store, lease.Strict, leaseCallers))
	perTrip := report.Measured("same: checks per round trip", "checks", measure.Figure{}, errors.New("no round trip"))
	if trips := counting.trips.Load(); trips > 0 {
		each := measure.Summarize([]float64{float64(asked.Load()) / float64(trips)})
		perTrip = report.Measured("same: checks per round trip", "checks", each, nil)
	}
	return []report.Row{
		against(r, strictAt, leasedAt, "two-tier leased over Redis, batch 100: throughput / strict").AtLeast(40).Saying(
			"TwoTier.Check on one hot key from one goroutine, leased in batches of %d (one per %s), against the same in strict mode,"+
				" where each check is a round trip (one per %s).", leaseBatch, perOp(r, leasedAt), perOp(r, strictAt)),
		perTrip.AtLeast(leaseBatch - 1).Saying(
			"All checks of the row above over all leases that they took. A hundred would be exact; the last lease of the run is not" +
				" used up."),
		against(crowd, strictAt, leasedAt, "same, 8 goroutines: throughput / strict").Saying(
			"The same from %d goroutines (one per %s; strict: one per %s). They wait for one lease together, so this is a round trip over"+
				" the batch, while strict checks share round trips by pipelining: a hotter key wants a larger batch.",
			leaseCallers, perOp(crowd, leasedAt), perOp(crowd, strictAt)),
	}
}

func twoTier(name string, store throttlekit.Store, mode lease.Mode, callers int) measure.Contestant {
	l, err := lease.NewTwoTier(lease.TwoTierConfig{
		Strategy: throttlekit.FixedWindow{Limit: 1e12, Window: time.Hour}, Store: store, Prefix: name,
		Mode: mode, Batch: leaseBatch, WindowCoupled: mode == lease.Leased,
	})
	if err != nil {
		return broken(name, err)
	}
	ctx := context.Background()
	return measure.Contestant{
		Name: name,
		Run: measure.Split(callers, func(ops int) error {
			for range ops {
				d, err := l.Check(ctx, "hot")
				if err != nil {
					return err
				}
				if !d.Allowed {
					return errDenied
				}
			}
			return nil
		}),
		Close: func() { _ = l.Close() },
	}
}

// grantRow compares what a coordinator can lend with what plain checks can.
func grantRow(s measure.Schedule, store throttlekit.Store) report.Row {
	const grantAt, checkAt = 0, 1
	const name = "coordinator grants over Redis / gcra checks: throughput"
	coordinator, err := lease.NewCoordinator(lease.CoordinatorConfig{
		Strategy: throttlekit.FixedWindow{Limit: 1e12, Window: time.Hour}, Store: store,
	})
	if err != nil {
		return report.Measured(name, "ratio", measure.Figure{}, err)
	}
	limiter, err := throttlekit.NewLimiter(storeStrategy, throttlekit.WithStore(store))
	if err != nil {
		return report.Measured(name, "ratio", measure.Figure{}, err)
	}
	ctx := context.Background()
	r := measure.Race(s,
		measure.Contestant{Name: "grants", Run: measure.Split(redisCallers, func(ops int) error {
			for i := range ops {
				g, err := coordinator.Lease(ctx, storeKeyNames[i%storeKeys], 1, leaseBatch)
				if err != nil {
					return err
				}
				if g.Units == 0 {
					return errDenied
				}
			}
			return nil
		})},
		measure.Contestant{Name: "checks", Run: measure.Split(redisCallers, func(ops int) error {
			return checks(ctx, limiter, ops, storeKeyNames)
		})},
	)
	return against(r, checkAt, grantAt, name).AtLeast(0.5).Saying(
		"Coordinator.Lease of %d units (one per %s) against Limiter.Check (gcra; one per %s), %d goroutines over %d keys on one Redis.",
		leaseBatch, perOp(r, grantAt), perOp(r, checkAt), redisCallers, storeKeys)
}
