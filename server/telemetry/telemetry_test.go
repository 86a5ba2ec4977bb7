package telemetry_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/server/telemetry"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

const policyFile = `
limiters:
  api: { strategy: fixedWindow, limit: 2, period: 1h }
  llm:
    strategy: gcra
    limit: 100
    period: 1h
    concurrency: { minLimit: 1, maxLimit: 1 }
  bare: { concurrency: { minLimit: 3, maxLimit: 3 } }
`

// must makes a value that cannot fail in these tests.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func start(tb testing.TB, config telemetry.Config) *telemetry.Telemetry {
	tb.Helper()
	t, err := telemetry.Start(tb.Context(), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = within(tb, t, time.Second) })
	return t
}

// within shuts down, which must not outlast its deadline by much.
func within(tb testing.TB, t *telemetry.Telemetry, limit time.Duration) error {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- t.Shutdown(ctx) }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit + 5*time.Second):
		tb.Fatal("the shutdown outlasts its deadline")
		return nil
	}
}

// serve runs a server that tells t, and returns a connection to it.
func serve(tb testing.TB, t *telemetry.Telemetry) *grpc.ClientConn {
	tb.Helper()
	built := must(must(policy.Parse("test", []byte(policyFile))).Build(policy.Env{}))
	svc := must(service.New(service.Config{Policies: built, Taps: []service.Tap{t}}))
	if err := t.Attach(svc); err != nil {
		tb.Fatal(err)
	}
	s := must(server.New(svc, server.Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: server.Off, GRPCStats: t.StatsHandler()}))
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ctx); err != nil {
			tb.Error(err)
		}
	})
	conn := must(grpc.NewClient(s.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))
	tb.Cleanup(func() {
		_ = conn.Close()
		cancel()
		serving.Wait()
		_ = svc.Close()
	})
	return conn
}

const (
	traceID  = "0af7651916cd43dd8448eb211c80319c"
	parentID = "b7ad6b7169203331"
)

// The names that collectors and their dashboards know (core specification, §7), in what a real client had a real server send to
// a collector: these and no others, and never a key.
func TestContract(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	tel := start(t, telemetry.Config{Endpoint: c.url, Node: "10.0.0.7:50051", Version: "1.2.3", Metrics: true, Traces: true})
	conn := serve(t, tel)
	stub := throttlekitv1.NewRateLimiterClient(conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+traceID+"-"+parentID+"-01")
	const key = "secret-key"
	for range 3 {
		must(stub.Check(ctx, &throttlekitv1.CheckRequest{Policy: "api", Key: key}))
	}
	must(stub.CheckMany(ctx, &throttlekitv1.CheckManyRequest{Policy: "api", Keys: []string{key + "2", key, key}}))
	held := must(stub.Admit(ctx, &throttlekitv1.AdmitRequest{Policy: "llm", Key: key}))
	must(stub.Admit(ctx, &throttlekitv1.AdmitRequest{Policy: "llm", Key: key}))
	must(stub.Admit(ctx, &throttlekitv1.AdmitRequest{Policy: "bare", Key: key}))
	must(stub.Release(ctx, &throttlekitv1.ReleaseRequest{LeaseId: held.GetLeaseId()}))
	must(healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}))
	if err := within(t, tel, 20*time.Second); err != nil {
		t.Fatal(err)
	}

	for name, want := range map[string]map[string]float64{
		"throttlekit.checks": {
			"allowed=true policy=api strategy=fixedWindow": 3, "allowed=false policy=api strategy=fixedWindow": 3,
			"allowed=true policy=llm strategy=gcra": 1, "allowed=false policy=llm strategy=gcra": 1, "allowed=true policy=bare": 1,
		},
		"throttlekit.remaining":            {"policy=api strategy=fixedWindow": 6, "policy=llm strategy=gcra": 2, "policy=bare": 1},
		"throttlekit.store.latency":        {"policy=api strategy=fixedWindow": 6, "policy=llm strategy=gcra": 2, "policy=bare": 1},
		"throttlekit.denies_by_axis":       {"lane=concurrency policy=llm": 1},
		"throttlekit.concurrency.limit":    {"policy=llm": 1, "policy=bare": 3},
		"throttlekit.concurrency.inflight": {"policy=llm": 0, "policy=bare": 1},
	} {
		if got := c.points(name); !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if got := c.points("throttlekit.concurrency.rtt_noload"); len(got) != 2 { // in milliseconds that nobody can foresee
		t.Errorf("got %v", got)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.metrics {
		kind, unit := "none of ours", ""
		switch m.GetName() {
		case "throttlekit.checks", "throttlekit.denies_by_axis":
			kind = "*v1.Metric_Sum"
		case "throttlekit.remaining", "throttlekit.store.latency":
			kind = "*v1.Metric_Histogram"
		case "throttlekit.concurrency.limit", "throttlekit.concurrency.inflight", "throttlekit.concurrency.rtt_noload":
			kind = "*v1.Metric_Gauge"
		}
		if strings.HasSuffix(m.GetName(), "latency") || strings.HasSuffix(m.GetName(), "noload") {
			unit = "ms"
		}
		if got := fmt.Sprintf("%T", m.GetData()); got != kind || m.GetUnit() != unit {
			t.Errorf("%s is %s in %q, want %s in %q", m.GetName(), got, m.GetUnit(), kind, unit)
		}
		if s := m.GetSum(); s != nil && (!s.GetIsMonotonic() || s.GetAggregationTemporality() != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE) {
			t.Errorf("%s is no counter", m.GetName())
		}
	}
	got := make([]string, 0, len(c.spans))
	for _, s := range c.spans {
		of, parent := hex.EncodeToString(s.GetTraceId()), hex.EncodeToString(s.GetParentSpanId())
		if of != traceID || parent != parentID || s.GetKind() != tracepb.Span_SPAN_KIND_SERVER {
			t.Errorf("%s is not within the trace of its caller: %v", s.GetName(), s)
		}
		ours := slices.DeleteFunc(strings.Fields(attributes(s.GetAttributes())), func(row string) bool { return !strings.HasPrefix(row, "throttlekit.") })
		for i := range ours {
			ours[i] = strings.TrimPrefix(ours[i], "throttlekit.")
			if strings.HasPrefix(ours[i], "retry_after_ms=") && ours[i] != "retry_after_ms=0" {
				ours[i] = "retry_after_ms=n"
			}
		}
		method := s.GetName()[strings.LastIndexByte(s.GetName(), '/')+1:]
		got = append(got, strings.TrimSpace(method+" "+strings.Join(ours, " ")))
	}
	slices.Sort(got)
	want := []string{
		"Admit allowed=false binding_axis=concurrency limit=1 policy=llm remaining=0 retry_after_ms=n",
		"Admit allowed=true limit=1 policy=llm remaining=0 retry_after_ms=0",
		"Admit allowed=true limit=3 policy=bare remaining=2 retry_after_ms=0",
		"Check allowed=false limit=2 policy=api remaining=0 retry_after_ms=n strategy=fixedWindow",
		"Check allowed=true limit=2 policy=api remaining=0 retry_after_ms=0 strategy=fixedWindow",
		"Check allowed=true limit=2 policy=api remaining=1 retry_after_ms=0 strategy=fixedWindow",
		"CheckMany allowed=true limit=2 policy=api remaining=1 retry_after_ms=0 strategy=fixedWindow",
		"Release",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, who := range c.who {
		all := attributes(who.GetAttributes())
		for _, want := range []string{"service.name=throttlekit", "service.version=1.2.3", "service.instance.id=10.0.0.7:50051"} {
			if !slices.Contains(strings.Fields(all), want) {
				t.Errorf("sent by %s, not %s", all, want)
			}
		}
	}
	if bytes.Contains(c.bytes, []byte(key)) {
		t.Error("a key was sent")
	}
}

// What is told of decisions that are not plain.
func TestDecisions(t *testing.T) {
	t.Parallel()
	const name = "odd\xff"
	tests := []struct {
		event   service.Event
		span    string // policy, limit, remaining and retry left out
		metrics string
	}{
		{service.Event{}, "allowed=false strategy=s", "checks{allowed=false} remaining"},
		{service.Event{Elapsed: 1, Decision: throttlekit.Decision{Allowed: true}}, "allowed=true strategy=s", "checks{allowed=true} remaining latency"},
		{service.Event{Elapsed: 1, FailMode: service.FailOpen, Decision: throttlekit.Decision{Allowed: true}}, "allowed=true strategy=s", ""},
		{service.Event{Lease: true, Decision: throttlekit.Decision{Allowed: true}}, "allowed=true strategy=s", "checks{allowed=true}"},
		{service.Event{Admit: true, Axis: "rate"}, "allowed=false binding_axis=rate", "checks{allowed=false} remaining rate"},
		{service.Event{Admit: true, Axis: "cost"}, "allowed=false binding_axis=cost", "checks{allowed=false} remaining cost"},
		{service.Event{Admit: true, Axis: "policy"}, "allowed=false", "checks{allowed=false} remaining policy"},
		{service.Event{Admit: true}, "allowed=false", "checks{allowed=false} remaining policy"},
		{service.Event{Admit: true, Axis: "moon"}, "allowed=false binding_axis=moon", "checks{allowed=false} remaining policy"},
		{service.Event{Admit: true, Decision: throttlekit.Decision{Allowed: true}}, "allowed=true", "checks{allowed=true} remaining"},
	}
	for i, test := range tests {
		c := newCollector(t)
		tel := start(t, telemetry.Config{Endpoint: c.url, Metrics: true})
		if tel.StatsHandler() != nil {
			t.Fatal("traces that nobody asked for")
		}
		recorder := tracetest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
		ctx, span := provider.Tracer("test").Start(t.Context(), "span")
		e := test.event
		e.Policy, e.Key = service.Info{Name: name, Strategy: "s"}, "secret-key"
		tel.DecidedIn(ctx, e)
		span.End()
		if err := within(t, tel, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		var onSpan []string
		for _, kv := range recorder.Ended()[0].Attributes() {
			row := strings.TrimPrefix(string(kv.Key), "throttlekit.") + "=" + kv.Value.String()
			switch {
			case strings.HasPrefix(row, "allowed"), strings.HasPrefix(row, "binding"), strings.HasPrefix(row, "strategy"):
				onSpan = append(onSpan, row)
			case row != "policy=odd\uFFFD" && row != "limit=0" && row != "remaining=0" && row != "retry_after_ms=0":
				t.Errorf("%d: %s", i, row)
			}
		}
		slices.Sort(onSpan)
		var measured []string
		for _, m := range []string{"checks", "remaining", "store.latency", "denies_by_axis"} {
			for of, value := range c.points("throttlekit." + m) {
				if value != 1 || !strings.Contains(of, "policy=odd\uFFFD") {
					t.Errorf("%d: %s{%s} %g", i, m, of, value)
				}
				switch m {
				case "checks":
					m += "{" + strings.Fields(of)[0] + "}"
				case "denies_by_axis":
					m = strings.TrimPrefix(strings.Fields(of)[0], "lane=")
				}
				measured = append(measured, strings.TrimPrefix(m, "store."))
			}
		}
		if got, axes := strings.Join(onSpan, " "), strings.Join(measured, " "); got != test.span || axes != test.metrics {
			t.Errorf("%d: got %q and %q, want %q and %q", i, got, axes, test.span, test.metrics)
		}
	}
}

// A batch of many puts one decision on its span, and counts all.
func TestBatch(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	tel := start(t, telemetry.Config{Endpoint: c.url, Metrics: true, Traces: true})
	stub := throttlekitv1.NewRateLimiterClient(serve(t, tel))
	keys := make([]string, 5000)
	keys[0] = "first"
	must(stub.CheckMany(t.Context(), &throttlekitv1.CheckManyRequest{Policy: "api", Keys: keys, Cost: 2}))
	if err := within(t, tel, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if got := c.points("throttlekit.checks"); got["allowed=true policy=api strategy=fixedWindow"] != 2 || got["allowed=false policy=api strategy=fixedWindow"] != 4998 {
		t.Errorf("got %v", got)
	}
	if len(c.spans) != 1 || c.spans[0].GetDroppedAttributesCount() != 0 || !strings.Contains(attributes(c.spans[0].GetAttributes()), "throttlekit.allowed=true") {
		t.Errorf("got %v", c.spans)
	}
}

// Guards are those of the source, and none before there is one.
func TestAttach(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	tel := start(t, telemetry.Config{Endpoint: c.url, Metrics: true, Interval: 5 * time.Millisecond})
	if err := tel.Attach(nil); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	attach := func(limit int) {
		if err := tel.Attach(guards{{Policy: "g", Limit: limit, InFlight: 2, NoLoad: 1500 * time.Microsecond}}); err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { return c.points("throttlekit.concurrency.limit")["policy=g"] == float64(limit) })
	}
	attach(3)
	attach(4)
	if got := c.points("throttlekit.concurrency.rtt_noload"); got["policy=g"] != 1.5 {
		t.Errorf("got %v", got)
	}
}

type guards []service.GuardState

func (g guards) Guards() []service.GuardState { return g }

// until waits for something that others bring about.
func until(tb testing.TB, done func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatal("not yet")
		}
	}
}

// A collector that is down, silent, hanging or that refuses holds up neither decisions nor the shutdown, and the shutdown says so.
func TestBadCollectors(t *testing.T) {
	t.Parallel()
	gone := must(net.Listen("tcp", "127.0.0.1:0"))
	_ = gone.Close()
	silent := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = silent.Close() })
	hanging, refusing := newCollector(t), newCollector(t)
	hanging.be(hang)
	refusing.be(refuse)
	for name, endpoint := range map[string]string{
		"down": "http://" + gone.Addr().String(), "silent": "http://" + silent.Addr().String(), "no TLS": refusing.url[len("http://"):],
		"hanging": hanging.url, "refusing": refusing.url, "no such host": "http://collector.invalid",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tel := start(t, telemetry.Config{Endpoint: endpoint, Metrics: true, Traces: true, Interval: 5 * time.Millisecond})
			stub := throttlekitv1.NewRateLimiterClient(serve(t, tel))
			requests := 300
			if name == "hanging" {
				requests = 3000 // more than the queue of spans holds
			}
			for i := range requests {
				if _, err := stub.Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "api", Key: "k"}); err != nil {
					t.Fatalf("check %d: %v", i, err)
				}
			}
			if err := within(t, tel, 300*time.Millisecond); err == nil {
				t.Error("everything was sent to nobody")
			}
			if _, err := stub.Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "api", Key: "k"}); err != nil {
				t.Errorf("after the shutdown: %v", err)
			}
			if err := tel.Shutdown(t.Context()); err == nil {
				t.Error("a second shutdown forgets what the first one found")
			}
		})
	}
}

// syncBuffer is a buffer for the log.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// The log is told when it begins to fail and when it ends, not of each attempt.
func TestLog(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	c.be(refuse)
	var log syncBuffer
	tel := start(t, telemetry.Config{
		Endpoint: c.url, Metrics: true, Interval: 5 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	tel.Decided(service.Event{Policy: service.Info{Name: "p"}, Key: "secret-key"})
	until(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.asked >= 5 })
	c.be(nil)
	until(t, func() bool { return strings.Contains(log.String(), "takes again") })
	if err := within(t, tel, 20*time.Second); err != nil {
		t.Error(err)
	}
	if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "not like this") || strings.Contains(got, "secret-key") {
		t.Errorf("got %s", got)
	}
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{
		"", "collector", ":4317", "collector:", "collector:0", "collector:65536", "collector:x", "grpc://collector:4317", "http://", "http://:1",
		"http://a/v1/traces", "http://a?b", "http://a#b", "http://user:hunter2@a", "a b:1", "user:hunter2@a:1",
	} {
		_, err := telemetry.Start(t.Context(), telemetry.Config{Endpoint: endpoint, Metrics: true})
		var invalid *throttlekit.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != "Endpoint" {
			t.Errorf("%q: got %v", endpoint, err)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") && strings.Contains(endpoint, "://") {
			t.Errorf("it tells a password: %v", err)
		}
	}
	_, err := telemetry.Start(t.Context(), telemetry.Config{Interval: -1})
	for _, field := range []string{"Endpoint", "Metrics", "Interval"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("got %v, which does not name %s", err, field)
		}
	}
	for _, endpoint := range []string{"a:1", "http://a", "https://a/", "http://[::1]:9", "[::1]:9"} {
		tel := start(t, telemetry.Config{Endpoint: endpoint, Traces: true})
		if err := within(t, tel, 10*time.Second); err != nil { // nothing was to be sent
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

// Nothing that a whole process has in common is changed.
func TestGlobals(t *testing.T) {
	t.Parallel()
	before := []any{otel.GetTracerProvider(), otel.GetMeterProvider(), otel.GetTextMapPropagator()}
	c := newCollector(t)
	start(t, telemetry.Config{Endpoint: c.url, Metrics: true, Traces: true})
	after := []any{otel.GetTracerProvider(), otel.GetMeterProvider(), otel.GetTextMapPropagator()}
	if !slices.Equal(before, after) {
		t.Error("globals were changed")
	}
}

// Decisions, shutdown and attachment at once.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	tel := start(t, telemetry.Config{Endpoint: c.url, Metrics: true, Traces: true, Interval: time.Millisecond})
	stub := throttlekitv1.NewRateLimiterClient(serve(t, tel))
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 200 {
				if _, err := stub.Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "api"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 100 {
		_ = tel.Attach(guards{{Policy: "g", Limit: i}})
	}
	work.Wait()
	if err := within(t, tel, 20*time.Second); err != nil {
		t.Error(err)
	}
	var sum float64
	for _, n := range c.points("throttlekit.checks") {
		sum += n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if sum != 1600 || len(c.spans) != 1600 {
		t.Errorf("%g checks, %d spans", sum, len(c.spans))
	}
}
