package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

const (
	callers = 64
	// grpcSlice is how many usual slices one of this area is: a call takes hundreds of times as long as a check.
	grpcSlice = 3

	benchPolicy = "bench"
	policyFile  = "limiters: { bench: { strategy: gcra, limit: 1, period: 1m, burst: 10000000000 } }"
)

func grpcRows(s measure.Schedule) []report.Row {
	s.Slice, s.Patience = s.Slice*grpcSlice, 1 // its own threads stall one another
	ours, err := startOurs(nil)
	if err != nil {
		return failedRow(err)
	}
	defer ours.stop()
	echo, err := startEcho()
	if err != nil {
		return failedRow(err)
	}
	defer echo.stop()
	const oursByClient, echoByClient, oursByStub, echoByStub = 0, 1, 2, 3
	calls := []*load{
		loadByClient("ThrottleKit, Go client", ours.addr),
		loadByClient("echo, Go client", echo.addr),
		loadByStub("ThrottleKit, stub", ours.addr),
		loadByStub("echo, stub", echo.addr),
	}
	r := measure.Race(s, calls[0].contestant(), calls[1].contestant(), calls[2].contestant(), calls[3].contestant())

	how := fmt.Sprintf("%d callers on one connection over loopback, one process. ThrottleKit: server.New, service and policy file as"+
		" serve sets them up (gcra in memory, a key for each caller). Echo: grpc.NewServer without options, the same method answered by a"+
		" constant CheckResponse. ", callers)
	throughput := func(i, j int, name string) report.Row {
		row := against(r, j, i, "check, 64 callers: throughput / echo's, "+name)
		return row.Saying("%sCalls per second (one per %s) over those of the echo (one per %s).", how, perOp(r, i), perOp(r, j))
	}
	rows := []report.Row{
		throughput(oursByClient, echoByClient, "both by Go client").AtLeast(0.85),
		throughput(oursByStub, echoByStub, "both by generated stub").AtLeast(0.85),
		throughput(oursByClient, echoByStub, "Go client / stub"),
	}
	rows[1].Note = "As above, with throttlekitv1.NewRateLimiterClient on a grpc.NewClient connection without options in place of" +
		" client.Dial."
	rows[2].Note = "Our server asked by our client over the echo asked by the stub: what the whole of ThrottleKit adds. No target."
	for i, c := range calls {
		rows = append(rows, c.latencies(r.Err(i))...)
	}
	return rows
}

func failedRow(err error) []report.Row {
	return []report.Row{report.Measured("setting up", "ratio", measure.Figure{}, err)}
}

// running is a server that answers on a port of this machine.
type running struct {
	addr string
	stop func()
}

// startOurs serves the bench policy from a store, or from memory if there is none.
func startOurs(store throttlekit.Store) (running, error) { return startPolicies(policyFile, store) }

func startPolicies(text string, store throttlekit.Store) (running, error) {
	svc, err := newService(text, policy.Env{Store: store}, service.Config{})
	if err != nil {
		return running{}, err
	}
	return startService(svc, nil)
}

// newService answers for the policies of a file, as config says.
func newService(text string, env policy.Env, config service.Config) (*service.Service, error) {
	file, err := policy.Parse("bench.yaml", []byte(text))
	if err != nil {
		return nil, err
	}
	if config.Policies, err = file.Build(env); err != nil {
		return nil, err
	}
	return service.New(config)
}

// startService serves what svc answers, and closes it in the end. A hub, if there is one, is shown.
func startService(svc *service.Service, hub *monitor.Hub) (running, error) {
	srv, err := server.New(svc, server.Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: server.Off, Monitor: hub})
	if err != nil {
		return running{}, errors.Join(err, svc.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Serve(ctx) })
	return running{addr: srv.GRPCAddr().String(), stop: func() {
		cancel()
		served.Wait()
		_ = svc.Close()
	}}, nil
}

// echo answers every check alike.
type echo struct {
	throttlekitv1.UnimplementedRateLimiterServer

	answer *throttlekitv1.CheckResponse
}

func (e *echo) Check(context.Context, *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
	return e.answer, nil
}

func startEcho() (running, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return running{}, err
	}
	s := grpc.NewServer()
	throttlekitv1.RegisterRateLimiterServer(s, &echo{answer: &throttlekitv1.CheckResponse{Decision: &throttlekitv1.Decision{
		Allowed: true, Limit: 10_000_000_000, Remaining: 9_999_999_999, ResetAt: time.Now().Add(time.Hour).UnixMilli(),
	}}})
	var served sync.WaitGroup
	served.Go(func() { _ = s.Serve(l) })
	return running{addr: l.Addr().String(), stop: func() {
		s.Stop()
		served.Wait()
	}}, nil
}

// load is what callers do to one server, and how long their calls took.
type load struct {
	name  string
	call  func(ctx context.Context, key string) (allowed bool, err error)
	close func() error
	err   error
	took  [callers][]time.Duration
}

func loadByClient(name, addr string) *load {
	c, err := client.Dial(addr)
	if err != nil {
		return &load{name: name, err: err}
	}
	return &load{name: name, close: c.Close, call: func(ctx context.Context, key string) (bool, error) {
		d, err := c.Check(ctx, benchPolicy, key)
		return d.Allowed, err
	}}
}

func loadByStub(name, addr string) *load {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return &load{name: name, err: err}
	}
	stub := throttlekitv1.NewRateLimiterClient(conn)
	return &load{name: name, close: conn.Close, call: func(ctx context.Context, key string) (bool, error) {
		res, err := stub.Check(ctx, &throttlekitv1.CheckRequest{Policy: benchPolicy, Key: key, Cost: 1})
		return res.GetDecision().GetAllowed(), err
	}}
}

func (l *load) contestant() measure.Contestant {
	return measure.Contestant{
		Name: l.name,
		Run:  l.run,
		Ready: func() {
			for i := range l.took {
				l.took[i] = nil
			}
		},
		Close: func() {
			if l.close != nil {
				_ = l.close()
			}
		},
	}
}

// run has the callers share ops calls: whoever is done with one takes the next, so that none is left behind at the end.
func (l *load) run(ops int) error {
	if l.err != nil {
		return l.err
	}
	var taken atomic.Int64
	errs := make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() { errs[i] = l.caller(i, &taken, int64(ops)) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// callerKey is the key that a caller asks for.
func callerKey(i int) string { return fmt.Sprintf("user:%07d", i) }

func (l *load) caller(i int, taken *atomic.Int64, ops int64) error {
	ctx, key := context.Background(), callerKey(i)
	for taken.Add(1) <= ops {
		began := time.Now()
		allowed, err := l.call(ctx, key)
		if err != nil {
			return err
		}
		if !allowed {
			return errDenied
		}
		l.took[i] = append(l.took[i], time.Since(began))
	}
	return nil
}

// latencies are rows for the median call and for the slowest in a hundred.
func (l *load) latencies(err error) []report.Row {
	var micros []float64
	for _, took := range &l.took {
		for _, d := range took {
			micros = append(micros, float64(d)/float64(time.Microsecond))
		}
	}
	slices.Sort(micros)
	row := func(name string, q float64) report.Row {
		value := measure.Quantile(micros, q)
		return report.Measured(l.name+": "+name, "µs", measure.Figure{Median: value, Low: value, High: value, Samples: 1}, err).Saying(
			"Latency as one of %d callers sees it, over %d calls, under full load, with %d CPUs for both sides.",
			callers, len(micros), runtime.NumCPU())
	}
	return []report.Row{row("p50", 0.5), row("p99", 0.99)}
}
