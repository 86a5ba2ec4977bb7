package main

import (
	"context"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
	"github.com/throttlekit/throttlekit-go/client"
)

const (
	fleetBatch = 1000
	fleetFile  = "limiters: { bench: { strategy: fixedWindow, limit: 1000000000000, period: 1h, federated: { batch: 1000 } } }"
)

// fleetRow compares a client that spends leases with one that asks for each check.
func fleetRow(s measure.Schedule) report.Row {
	const leasedAt, askedAt = 0, 1
	const name = "client.Leased.Check, batch 1000, 8 goroutines: throughput / unary Check"
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	if err != nil {
		return report.Measured(name, "ratio", measure.Figure{}, err)
	}
	defer func() { _ = store.Close() }()
	srv, err := startPolicies(fleetFile, store)
	if err != nil {
		return report.Measured(name, "ratio", measure.Figure{}, err)
	}
	defer srv.stop()
	c, err := client.Dial(srv.addr)
	if err != nil {
		return report.Measured(name, "ratio", measure.Figure{}, err)
	}
	defer func() { _ = c.Close() }()
	leased, err := c.Fleet().Leased(benchPolicy, "", fleetBatch)
	if err != nil {
		return report.Measured(name, "ratio", measure.Figure{}, err)
	}
	defer func() { _ = leased.Close() }()
	s.Slice, s.Patience = s.Slice*grpcSlice, 1 // server and callers stall one another
	r := measure.Race(s, checking("leased", leased), checking("unary", c.Bind(benchPolicy)))
	return against(r, askedAt, leasedAt, name).AtLeast(200).Saying(
		"%d goroutines check by one Leased (one per %s), which takes %d units from the server at a time, or by one Client (one per %s),"+
			" which asks for each; the same federated policy on a memory store, one process, loopback.",
		leaseCallers, perOp(r, leasedAt), fleetBatch, perOp(r, askedAt))
}

// checking has leaseCallers check one key.
func checking(name string, limiter throttlekit.Checker) measure.Contestant {
	ctx := context.Background()
	return measure.Contestant{Name: name, Run: measure.Split(leaseCallers, func(ops int) error {
		for range ops {
			d, err := limiter.Check(ctx, "hot")
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
