package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
)

const (
	readers = 100
	// tailSlice is how many usual slices one is of which a percentile counts. A hub hands out denials by the second, so that a slice
	// much shorter would have more or less than its share of that.
	tailSlice = 33
	// tailRounds is for how many of the usual rounds there is one of those.
	tailRounds = 3
	// seldom is of how many calls one is denied where most are allowed: some hundred denials a second.
	seldom = 128
)

// startWatched serves a service that is watched or not, and whose full policy is full for all callers.
func startWatched(on bool) (running, watched, error) {
	svc, err := newWatched(on)
	if err != nil {
		return running{}, svc, err
	}
	for i := range callers {
		if _, err := svc.Check(context.Background(), fullPolicy, callerKey(i), 1); err != nil {
			svc.close()
			return running{}, svc, errors.Join(err, svc.Close())
		}
	}
	r, err := startService(svc.Service, svc.hub)
	if err != nil {
		svc.close()
		return running{}, svc, err
	}
	return running{addr: r.addr, stop: func() {
		r.stop()
		svc.close()
	}}, svc, nil
}

// watchedCallRows compare the throughput of calls.
func watchedCallRows(s measure.Schedule) []report.Row {
	s.Slice, s.Patience = s.Slice*grpcSlice, 1 // its own threads stall one another
	on, _, err := startWatched(true)
	if err != nil {
		return failedRow(err)
	}
	defer on.stop()
	off, _, err := startWatched(false)
	if err != nil {
		return failedRow(err)
	}
	defer off.stop()
	const onByClient, offByClient, onByStub, offByStub, onDenied, offDenied = 0, 1, 2, 3, 4, 5
	r := measure.Race(s,
		loadByClient("on, Go client", on.addr).contestant(), loadByClient("off, Go client", off.addr).contestant(),
		loadByStub("on, stub", on.addr).contestant(), loadByStub("off, stub", off.addr).contestant(),
		deniedLoad("on, denied", on.addr, 1).contestant(), deniedLoad("off, denied", off.addr, 1).contestant(),
	)
	row := func(i, j int, name string) report.Row {
		return against(r, j, i, "gRPC check, 64 callers, "+name+": throughput, hub on / off").AtLeast(0.97).Saying(
			"Calls per second with a hub (one per %s) over those without (one per %s), %d callers on one connection over loopback, one"+
				" process, %d CPUs; nobody reads. %s", perOp(r, i), perOp(r, j), callers, runtime.NumCPU(), hubOfServe)
	}
	return []report.Row{
		row(onByClient, offByClient, "by Go client"), row(onByStub, offByStub, "by stub"), row(onDenied, offDenied, "by stub, all denied"),
	}
}

// deniedLoad has one call of so many denied, by the full policy.
func deniedLoad(name, addr string, of int64) *load {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return &load{name: name, err: err}
	}
	stub := throttlekitv1.NewRateLimiterClient(conn)
	var calls atomic.Int64
	return &load{name: name, close: conn.Close, call: func(ctx context.Context, key string) (bool, error) {
		req := &throttlekitv1.CheckRequest{Policy: benchPolicy, Key: key, Cost: 1}
		fits := calls.Add(1)%of != 0
		if !fits {
			req.Policy = fullPolicy
		}
		res, err := stub.Check(ctx, req)
		if err != nil {
			return false, err
		}
		if allowed := res.GetDecision().GetAllowed(); allowed != fits {
			return false, wrongly(allowed)
		}
		return true, nil
	}}
}

// crowd is who watches a server.
type crowd struct {
	name  string
	count int
	every time.Duration // each reads one event in it; 0 is never
	full  bool          // until nothing more fits into what is between them and the hub
}

// slowReaderRows compare the tail of calls with slow readers of denials with that without.
func slowReaderRows(s measure.Schedule) []report.Row {
	s.Slice, s.Rounds, s.Patience = s.Slice*tailSlice, max(s.Rounds/tailRounds, fewestRuns), 1
	idle := crowd{name: "that read nothing", count: readers}
	slow := crowd{name: "of 1 event a second", count: readers, every: time.Second}
	idleFull, slowFull := idle, slow
	idleFull.full, slowFull.full = true, true
	idleFull.name += ", buffers full"
	slowFull.name += ", buffers full"
	rows := slowReaderRowsOf(s, 1, "all denied", idle, slow)
	idle.name += ", buffers filling"
	return append(rows, slowReaderRowsOf(s, seldom, fmt.Sprintf("1 of %d denied", seldom), idle, idleFull, slowFull)...)
}

// slowReaderRowsOf compare crowds with nobody, when one call of so many is denied.
func slowReaderRowsOf(s measure.Schedule, of int64, traffic string, crowds ...crowd) []report.Row {
	loads, stop, err := watchedBy(of, append([]crowd{{name: "nobody"}}, crowds...))
	defer stop()
	if err != nil {
		return failedRow(err)
	}
	contestants := make([]measure.Contestant, len(loads))
	for i, l := range loads {
		contestants[i] = l.tailContestant()
	}
	r := measure.Race(s, contestants...)
	rows := make([]report.Row, len(crowds))
	for i, c := range crowds {
		name := fmt.Sprintf("same, %s: p99 with %d readers %s / with none", traffic, readers, c.name)
		rows[i] = against(r, i+1, 0, name).Below(1.1).Saying(
			"99th percentile of the latencies that %d callers see under full load while %d readers of Monitor.Watch are there, each on a"+
				" connection of its own (%s), over that while none is (%s). The hub is on in both; readers, callers and servers are in one"+
				" process on %d CPUs. By turns, %d slices of %v, each with a percentile of its own.",
			callers, readers, perOp(r, i+1), perOp(r, 0), runtime.NumCPU(), s.Rounds, s.Slice)
	}
	return rows
}

// watchedBy starts a server for each crowd. What it has started, stop ends, also after an error.
func watchedBy(of int64, crowds []crowd) (loads []*load, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
	}
	errs := make([]error, len(crowds))
	var filled sync.WaitGroup
	for i, c := range crowds {
		srv, svc, err := startWatched(true)
		if err != nil {
			return nil, stop, err
		}
		leave, err := read(srv.addr, c.count, c.every)
		stops = append(stops, srv.stop, leave) // readers leave before the server stops, which would wait for them
		if err != nil {
			return nil, stop, err
		}
		if c.full {
			filled.Go(func() { errs[i] = fill(svc) })
		}
		loads = append(loads, deniedLoad(c.name, srv.addr, of))
	}
	filled.Wait()
	return loads, stop, errors.Join(errs...)
}

// fill denies until one denial after the other finds no room at any reader.
func fill(svc watched) error {
	const (
		gap      = 100 * time.Millisecond // so many readers are handed ten a second
		enough   = 10
		patience = 5 * time.Minute
	)
	key := strings.Repeat("k", 128) // as much as is handed out
	turn := time.NewTicker(gap)
	defer turn.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for missed, before := 0, int64(0); missed < enough; {
		select {
		case <-turn.C:
		case <-ctx.Done():
			return errors.New("the readers took all that there was")
		}
		if _, err := svc.Check(ctx, fullPolicy, key, 1); err != nil {
			return err
		}
		dropped := svc.hub.Snapshot(ctx).Watch.Dropped
		if missed++; dropped < before+readers*9/10 { // a slow reader may just have made room
			missed = 0
		}
		before = dropped
	}
	return nil
}

// tailContestant is a contestant of whose slices the 99th percentile counts.
func (l *load) tailContestant() measure.Contestant {
	c := l.contestant()
	run := c.Run
	c.Run = func(ops int) error {
		c.Ready()
		return run(ops)
	}
	c.Counts = func() float64 {
		var all []time.Duration
		for _, took := range &l.took {
			all = append(all, took...)
		}
		return percentile99(all)
	}
	return c
}

// percentile99 is the slowest of a hundred, in nanoseconds.
func percentile99(took []time.Duration) float64 {
	slices.Sort(took)
	values := make([]float64, len(took))
	for i, d := range took {
		values[i] = float64(d)
	}
	return measure.Quantile(values, 0.99)
}

// read has so many readers watch all denials of a server until they leave. Each reads one event in every span, or none.
func read(addr string, count int, every time.Duration) (leave func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	var conns []*grpc.ClientConn
	var all sync.WaitGroup
	leave = func() {
		cancel()
		all.Wait()
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
	for range count {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return leave, err
		}
		conns = append(conns, conn)
		stream, err := throttlekitv1.NewMonitorClient(conn).Watch(ctx, &throttlekitv1.WatchRequest{})
		if err != nil {
			return leave, err
		}
		if _, err := stream.Header(); err != nil { // from here on it is subscribed
			return leave, err
		}
		if every > 0 {
			all.Go(func() { readSlowly(ctx, stream, every) })
		}
	}
	return leave, nil
}

// readSlowly reads an event now and then until the stream ends.
func readSlowly(ctx context.Context, stream grpc.ServerStreamingClient[throttlekitv1.WatchResponse], every time.Duration) {
	turn := time.NewTicker(every)
	defer turn.Stop()
	for {
		select {
		case <-turn.C:
			if _, err := stream.Recv(); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
