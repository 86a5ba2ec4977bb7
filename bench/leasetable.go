package main

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

const (
	heldLeases  = 100_000
	leaseRounds = 5
	heldPolicy  = "limiters: { bench: { concurrency: { minLimit: 200000, maxLimit: 200000 } } }"
)

// leaseTableRows measure what leases on slots cost a service that holds very many of them.
func leaseTableRows() []report.Row {
	bytes, err := leaseBytes()
	rows := []report.Row{report.Measured("100,000 held leases: bytes of each", "bytes", bytes, err).AtMost(200).Saying(
		"Growth of the live heap over the number of leases, their slots of the guard included. Median of %d services.", leaseRounds)}
	sweeps := make([]swept, 2*leaseRounds-1)
	for i := range sweeps {
		if sweeps[i], err = sweepHeld(); err != nil {
			return append(rows, report.Measured("100,000 ended leases: a sweep", "ms", measure.Figure{}, err))
		}
	}
	slices.SortFunc(sweeps, func(a, b swept) int { return cmp.Compare(a.stalled, b.stalled) })
	row := func(name string, of func(s swept) float64) report.Row {
		var values, stalls []float64
		for _, s := range sweeps[:leaseRounds] {
			values, stalls = append(values, of(s)), append(stalls, s.stalled)
		}
		f := measure.Summarize(values)
		f.Stalled = measure.Summarize(stalls).Median
		return report.Measured(name, "ms", f, nil)
	}
	return append(rows,
		row("100,000 ended leases: longest hold of the table", func(s swept) float64 { return s.longest }).AtMost(5).Saying(
			"The longest that a caller of Service.Leases waited while all were reclaimed in one sweep, of callers one after the other."+
				" What it waits for a CPU counts, too: of %d sweeps these are the %d that waited least. A sweep that finds none ended"+
				" looks at one lease: BenchmarkSweep in service.", len(sweeps), leaseRounds),
		row("same: the whole sweep", func(s swept) float64 { return s.whole }).Saying(
			"From the first that was seen to be reclaimed to the last, each dropped at the guard; the table is free in between."),
		row("100,000 held leases: one heartbeat of all", func(s swept) float64 { return s.renewal }).Saying(
			"Service.Heartbeat with all ids."),
	)
}

func holding(ttl time.Duration) (*service.Service, error) {
	return newService(heldPolicy, policy.Env{}, service.Config{LeaseTTL: ttl})
}

// hold has leases granted, and hands their ids to keep.
func hold(svc *service.Service, keep func(id string)) error {
	ctx := context.Background()
	for range heldLeases {
		a, err := svc.Admit(ctx, benchPolicy, service.AdmitRequest{Key: "user"})
		if err != nil {
			return err
		}
		if a.Lease == "" {
			return errDenied
		}
		keep(a.Lease)
	}
	return nil
}

func leaseBytes() (measure.Figure, error) {
	samples := make([]float64, 0, leaseRounds)
	for range leaseRounds {
		svc, err := holding(time.Hour)
		if err != nil {
			return measure.Figure{}, err
		}
		before := measure.ReadHeap()
		if err := hold(svc, func(string) {}); err != nil {
			return measure.Figure{}, errors.Join(err, svc.Close())
		}
		samples = append(samples, float64(measure.ReadHeap().Since(before).Live)/heldLeases)
		if err := svc.Close(); err != nil {
			return measure.Figure{}, err
		}
	}
	return measure.Summarize(samples), nil
}

// swept is how long it took to reclaim all leases, in milliseconds, and which share of that threads waited for a CPU.
type swept struct{ whole, longest, renewal, stalled float64 }

// sweepHeld lets all leases end at the same moment.
func sweepHeld() (s swept, err error) {
	const (
		ttl      = 2 * time.Second
		patience = 5 * ttl
	)
	svc, err := holding(ttl)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, svc.Close()) }()
	ids := make([]string, 0, heldLeases)
	if err := hold(svc, func(id string) { ids = append(ids, id) }); err != nil {
		return s, err
	}
	runtime.GC()
	began := time.Now()
	renewal, err := svc.Heartbeat(ids) // from now on they end together
	if err != nil || len(renewal.Live) != heldLeases {
		return s, errors.Join(err, errors.New("leases ended before they were looked at"))
	}
	s.renewal = millis(time.Since(began))
	first, before := time.Time{}, measure.Stalled()
	for last := time.Now(); ; {
		held, _ := svc.Leases()
		now := time.Now()
		if held < heldLeases {
			if first.IsZero() {
				first = last
			}
			s.longest = max(s.longest, millis(now.Sub(last)))
		}
		if last = now; held == 0 {
			break
		}
		if now.Sub(began) > patience {
			return s, errors.New("leases were not reclaimed")
		}
		if held == heldLeases {
			before = measure.Stalled()
			time.Sleep(time.Millisecond)
		}
	}
	s.whole = millis(time.Since(first))
	s.stalled = float64(measure.Stalled()-before) / float64(time.Since(first))
	return s, nil
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
