package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/api/throttlekit/v1/throttlekitv1connect"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
)

// watched is a server with a hub that watches the policies "five" and "tokens", and its configuration changed.
func watched(tb testing.TB, change func(*Config)) (s *Server, hub *monitor.Hub, stop func() error) {
	tb.Helper()
	hub = must(monitor.New(monitor.Config{Node: "here:1", Backend: "memory"}))
	svc := must(service.New(service.Config{
		Policies: []service.Policy{plain{"five", limiter(5)}, meter{"tokens", newMeter(tb)}}, Taps: []service.Tap{hub},
	}))
	tb.Cleanup(func() { _ = svc.Close() })
	if err := hub.Attach(svc); err != nil {
		tb.Fatal(err)
	}
	cfg := local()
	cfg.Monitor = hub
	cfg.Metrics = must(hub.Metrics(monitor.MetricsConfig{}))
	if change != nil {
		change(&cfg)
	}
	s, stop = serve(tb, svc, cfg)
	return s, hub, stop
}

// viewer is a way into Monitor. watch returns once the stream is open; next waits for its next event.
type viewer struct {
	snapshot func(ctx context.Context) (*throttlekitv1.Snapshot, error)
	watch    func(ctx context.Context, policy string) (next func() (*throttlekitv1.DenialEvent, error), err error)
}

// viewers are the ways into Monitor, with these headers.
func viewers(tb testing.TB, s *Server, headers map[string]string) map[string]viewer {
	tb.Helper()
	stub := throttlekitv1.NewMonitorClient(dial(tb, s))
	with := func(ctx context.Context) context.Context {
		return metadata.NewOutgoingContext(ctx, metadata.New(headers))
	}
	web := throttlekitv1connect.NewMonitorClient(connect.NewClient(
		connecthttp.NewTransport(doer{httpClient(tb), headers}, "http://"+s.HTTPAddr().String())))
	asStatus := func(err error) error {
		if err == nil || errors.Is(err, io.EOF) {
			return err
		}
		return status.Error(codes.Code(connect.CodeOf(err)), err.Error())
	}
	return map[string]viewer{
		"grpc": {
			snapshot: func(ctx context.Context) (*throttlekitv1.Snapshot, error) {
				res, err := stub.GetSnapshot(with(ctx), &throttlekitv1.GetSnapshotRequest{})
				return res.GetSnapshot(), err
			},
			watch: func(ctx context.Context, policy string) (func() (*throttlekitv1.DenialEvent, error), error) {
				stream, err := stub.Watch(with(ctx), &throttlekitv1.WatchRequest{Policy: policy})
				if err != nil {
					return nil, err
				}
				next := func() (*throttlekitv1.DenialEvent, error) {
					res, err := stream.Recv()
					return res.GetDenial(), err
				}
				if header, err := stream.Header(); err != nil || header == nil {
					_, err := next()
					return nil, err
				}
				return next, nil
			},
		},
		"http": {
			snapshot: func(ctx context.Context) (*throttlekitv1.Snapshot, error) {
				res, err := web.GetSnapshot(ctx, &throttlekitv1.GetSnapshotRequest{})
				return res.GetSnapshot(), asStatus(err)
			},
			watch: func(ctx context.Context, policy string) (func() (*throttlekitv1.DenialEvent, error), error) {
				stream, err := web.Watch(ctx, &throttlekitv1.WatchRequest{Policy: policy})
				if err != nil {
					return nil, asStatus(err)
				}
				tb.Cleanup(func() { _ = stream.Close() })
				return func() (*throttlekitv1.DenialEvent, error) {
					res, err := stream.Receive()
					return res.GetDenial(), asStatus(err)
				}, nil
			},
		},
	}
}

// doer is an HTTP client with headers.
type doer struct {
	client  *http.Client
	headers map[string]string
}

func (d doer) Do(r *http.Request) (*http.Response, error) {
	for name, value := range d.headers {
		r.Header.Set(name, value)
	}
	return d.client.Do(r)
}

// untilWatched returns once a hub has this many watchers.
func untilWatched(tb testing.TB, hub *monitor.Hub, n int) {
	tb.Helper()
	for hub.Watchers() != n {
		if tb.Context().Err() != nil {
			tb.Fatal("nobody watches")
		}
	}
}

// denial is what a hub is told.
func denial(policy, key string) service.Event {
	return service.Event{
		Policy: service.Info{Name: policy, Kind: "plain", Strategy: "gcra"}, Key: key, Cost: 1, At: time.Now(),
		Decision: throttlekit.Decision{Limit: 5, Remaining: 2, RetryAfterMillis: 7},
	}
}

func TestMonitorSnapshot(t *testing.T) {
	t.Parallel()
	s, _, _ := watched(t, nil)
	limiter := stubs(t, s)["grpc"]
	for range 7 {
		if _, err := limiter.Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "five", Key: "<bad>"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := limiter.Debit(t.Context(), &throttlekitv1.DebitRequest{Policy: "tokens", Key: "me", Tokens: 8}); err != nil {
		t.Fatal(err)
	}
	for name, v := range viewers(t, s, nil) {
		got, err := v.snapshot(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m := got.GetMeta(); m.GetWindowMs() != 60_000 || m.GetMode() != "process" || m.GetLensVersion() != "0.3.0" || m.GetNodeId() != "here:1" || m.GetGeneratedAt() == 0 {
			t.Errorf("%s: meta %v", name, m)
		}
		if len(got.GetPolicies()) != 2 || len(got.GetGuards()) != 0 || len(got.GetRecentDenials()) != 2 {
			t.Fatalf("%s: got %v", name, got)
		}
		p := got.GetPolicies()[0]
		if p.GetName() != "five" || p.GetKind() != "limiter" || p.GetAllowed() != 5 || p.GetDenied() != 2 || p.GetLimit() != 5 || p.GetLatency().GetN() == 0 ||
			len(p.GetTopDenied()) != 1 || p.GetTopDenied()[0].GetKey() != "<bad>" || p.GetTopDenied()[0].GetCount() != 2 || p.GetTopRequested()[0].GetCount() != 7 {
			t.Errorf("%s: got %v", name, p)
		}
		if p := got.GetPolicies()[1]; p.GetName() != "tokens" || p.GetKind() != "limiter" || p.GetAllowed() != 1 || p.GetLatency() == nil {
			t.Errorf("%s: got %v", name, p)
		}
		if d := got.GetRecentDenials()[1]; d.GetPolicy() != "five" || d.GetKey() != "<bad>" || d.GetAxis() != "" || d.GetLimit() != 5 || d.GetRetryAfterMs() == 0 {
			t.Errorf("%s: got %v", name, d)
		}
		var document struct {
			Policies []struct{ Analytics struct{ Units float64 } }
			Health   struct{ Backend, FailMode string }
		}
		if err := json.Unmarshal([]byte(got.GetRawJson()), &document); err != nil || document.Policies[1].Analytics.Units != 8 || document.Health.FailMode != "open" {
			t.Errorf("%s: %v, %+v", name, err, document)
		}
	}
}

// A configured secret is asked of everybody, loopback included; an empty one locks the door; without one, loopback may ask.
func TestMonitorSecret(t *testing.T) {
	t.Parallel()
	const right = "correct horse"
	empty := ""
	for _, test := range []struct {
		secret  *string
		headers map[string]string
		want    codes.Code
	}{
		{nil, nil, codes.OK},
		{nil, map[string]string{"x-monitor-secret": "whatever"}, codes.OK},
		{new(right), map[string]string{"x-monitor-secret": right}, codes.OK},
		{new(right), map[string]string{"authorization": "bearer  " + right}, codes.OK},
		{new(right), nil, codes.Unauthenticated},
		{new(right), map[string]string{"x-monitor-secret": "wrong", "authorization": "Bearer " + right}, codes.Unauthenticated},
		{new(right), map[string]string{"x-fleet-secret": right}, codes.Unauthenticated},
		{new(right), map[string]string{"x-monitor-secret": right + " "}, codes.OK}, // HTTP trims values
		{new(right), map[string]string{"x-monitor-secret": right + "x"}, codes.Unauthenticated},
		{&empty, nil, codes.Unauthenticated},
		{&empty, map[string]string{"x-monitor-secret": ""}, codes.Unauthenticated},
		{&empty, map[string]string{"authorization": "Bearer "}, codes.Unauthenticated},
		{&empty, map[string]string{"x-monitor-secret": right}, codes.Unauthenticated},
	} {
		s, _, stop := watched(t, func(c *Config) { c.MonitorSecret = test.secret })
		for name, v := range viewers(t, s, test.headers) {
			want := test.want
			if name == "grpc" && strings.HasSuffix(test.headers["x-monitor-secret"], " ") {
				continue // grpc-go may or may not trim
			}
			got, err := v.snapshot(t.Context())
			if status.Code(err) != want || (got == nil) != (want != codes.OK) || strings.Contains(fmt.Sprint(err), right) {
				t.Errorf("%s: %v: got %v, want %v", name, test.headers, err, want)
			}
			ctx, cancel := context.WithCancel(t.Context())
			next, err := v.watch(ctx, "")
			if err == nil && want != codes.OK {
				_, err = next()
			}
			if status.Code(err) != want {
				t.Errorf("%s: watch: %v: got %v, want %v", name, test.headers, err, want)
			}
			cancel()
		}
		if _, err := stubs(t, s)["grpc"].Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "five"}); err != nil {
			t.Errorf("checks need no secret: %v", err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{" x", "a\nb", "ä"} {
		_, err := New(policies(t), Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: Off, MonitorSecret: &bad})
		if !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), "MonitorSecret") || strings.Contains(err.Error(), bad+`"`) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestMonitorWatch(t *testing.T) {
	t.Parallel()
	s, hub, _ := watched(t, nil)
	hub.Decided(denial("five", "before"))
	for name, v := range viewers(t, s, nil) {
		ctx, cancel := context.WithCancel(t.Context())
		all, err := v.watch(ctx, "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		one, err := v.watch(ctx, "five")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		none, err := v.watch(ctx, "vanished")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		untilWatched(t, hub, 3)
		other := denial("tokens", "1")
		other.Admit, other.Axis = true, "cost"
		allowed := denial("five", "allowed")
		allowed.Decision.Allowed = true
		for _, e := range []service.Event{other, allowed, denial("five", "2<\xff>")} {
			hub.Decided(e)
		}
		first, err := all()
		if err != nil || first.GetPolicy() != "tokens" || first.GetKey() != "1" || first.GetAxis() != "cost" || first.GetRemaining() != 2 || first.GetRetryAfterMs() != 7 {
			t.Errorf("%s: got %v %v", name, first, err)
		}
		for _, next := range []func() (*throttlekitv1.DenialEvent, error){all, one} {
			if got, err := next(); err != nil || got.GetPolicy() != "five" || got.GetKey() != "2<\uFFFD>" || got.GetAxis() != "" {
				t.Errorf("%s: got %v %v", name, got, err)
			}
		}
		cancel()
		if _, err := none(); status.Code(err) != codes.Canceled {
			t.Errorf("%s: got %v, want cancelled", name, err)
		}
		untilWatched(t, hub, 0)
	}
}

// Streams end with the server, at once, also those of a policy whose service is closed.
func TestMonitorWatchEndsWithTheServer(t *testing.T) {
	t.Parallel()
	s, hub, stop := watched(t, nil)
	var nexts []func() (*throttlekitv1.DenialEvent, error)
	for name, v := range viewers(t, s, nil) {
		for _, policy := range []string{"", "five"} {
			next, err := v.watch(t.Context(), policy)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			nexts = append(nexts, next)
		}
	}
	untilWatched(t, hub, len(nexts))
	began := time.Now()
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if took := time.Since(began); took > soon {
		t.Errorf("the drain took %v", took)
	}
	for i, next := range nexts {
		if _, err := next(); status.Code(err) != codes.Unavailable {
			t.Errorf("%d: got %v, want UNAVAILABLE", i, err)
		}
	}
	untilWatched(t, hub, 0)
}

// Readers that never read lose events, hold nobody up, and are cut off when the server ends.
func TestMonitorWatchSlowReaders(t *testing.T) {
	t.Parallel()
	const readers = 100
	s, hub, stop := watched(t, func(c *Config) { c.DrainTimeout = 100 * time.Millisecond })
	conn := dial(t, s, grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	for range readers {
		stream, err := throttlekitv1.NewMonitorClient(conn).Watch(t.Context(), &throttlekitv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Header(); err != nil {
			t.Fatal(err)
		}
	}
	untilWatched(t, hub, readers)
	long := strings.Repeat("k", 128)
	for i := 0; hub.Snapshot(t.Context()).Watch.Dropped == 0; i++ {
		for p := range 100 {
			hub.Decided(denial(fmt.Sprint("policy", p), long))
		}
		if i > 100_000 {
			t.Fatal("nothing was dropped")
		}
	}
	began := time.Now()
	if err := stop(); err != nil && !errors.Is(err, ErrDrainTimeout) {
		t.Errorf("Serve: %v", err)
	}
	if took := time.Since(began); took > soon {
		t.Errorf("the drain took %v", took)
	}
	untilWatched(t, hub, 0)
}

func TestMonitorNotServed(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, policies(t), local())
	for name, v := range viewers(t, s, nil) {
		if _, err := v.snapshot(t.Context()); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: got %v", name, err)
		}
		next, err := v.watch(t.Context(), "")
		if err == nil {
			_, err = next()
		}
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: watch: got %v", name, err)
		}
	}
	monitorHealth := func(s *Server) codes.Code {
		_, err := healthpb.NewHealthClient(dial(t, s)).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "throttlekit.v1.Monitor"})
		return status.Code(err)
	}
	if got := monitorHealth(s); got != codes.NotFound {
		t.Errorf("health: got %v", got)
	}
	if got := send(t, httpClient(t), http.MethodGet, "http://"+s.HTTPAddr().String()+"/metrics", "", ""); got.status != http.StatusNotFound {
		t.Errorf("metrics: got %d", got.status)
	}
	s, _, _ = watched(t, nil)
	if got := monitorHealth(s); got != codes.OK {
		t.Errorf("health: got %v", got)
	}
}

func TestMonitorUndecodable(t *testing.T) {
	t.Parallel()
	s, _, _ := watched(t, nil)
	conn := dial(t, s, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rubbish{newGRPCCodec()})))
	stream, err := throttlekitv1.NewMonitorClient(conn).Watch(t.Context(), &throttlekitv1.WatchRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

func TestMonitorWarning(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		host   string
		secret *string
		want   bool
	}{{"127.0.0.1", nil, false}, {"0.0.0.0", nil, true}, {"0.0.0.0", new("s3cret"), false}} {
		var log bytes.Buffer
		cfg := Config{GRPCAddr: test.host + ":0", HTTPAddr: Off, AllowInsecure: true, MonitorSecret: test.secret}
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		cfg.Monitor = must(monitor.New(monitor.Config{}))
		s := must(New(policies(t), cfg))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(log.String(), "without a monitor secret"); got != test.want || strings.Contains(log.String(), "s3cret") {
			t.Errorf("%+v: got %s", test, &log)
		}
	}
}

func TestMetricsDoor(t *testing.T) {
	t.Parallel()
	s, hub, _ := watched(t, nil)
	hub.Decided(denial("five", "a key"))
	url := "http://" + s.HTTPAddr().String() + "/metrics"
	got := send(t, httpClient(t), http.MethodGet, url+"?x=y", "", "")
	if got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8") ||
		!strings.Contains(got.body, `throttlekit_denied_total{policy="five"} 1`+"\n") || strings.Contains(got.body, "a key") {
		t.Errorf("got %d %v\n%s", got.status, got.header, got.body)
	}
	if got := send(t, httpClient(t), http.MethodPost, url, "", ""); got.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d", got.status)
	}

	// With keys in them they are for those who may see keys.
	s, hub, _ = watched(t, func(c *Config) {
		c.MonitorSecret = new("s3cret")
		c.Metrics = must(c.Monitor.Metrics(monitor.MetricsConfig{TopKeys: 3}))
	})
	hub.Decided(denial("five", "a key"))
	url = "http://" + s.HTTPAddr().String() + "/metrics"
	if got := send(t, httpClient(t), http.MethodGet, url, "", ""); got.status != http.StatusUnauthorized || strings.Contains(got.body, "a key") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil))
	res, err := doer{httpClient(t), map[string]string{"authorization": "Bearer s3cret"}}.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body := string(must(io.ReadAll(res.Body))); !strings.Contains(body, `throttlekit_top_key_denials{key="a key",policy="five"} 1`) {
		t.Errorf("got %s", body)
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	down := func(context.Context) error { return errors.New("redis://secret@host: no") }
	up := func(context.Context) error { return nil }
	for _, test := range []struct {
		ready    func(context.Context) error
		failMode service.FailMode
		status   int
		body     string
	}{
		{nil, "", 200, `{"ready":true,"store":"none","failMode":"open","draining":false}`},
		{up, "open", 200, `{"ready":true,"store":"ok","failMode":"open","draining":false}`},
		{up, "closed", 200, `{"ready":true,"store":"ok","failMode":"closed","draining":false}`},
		{down, "open", 200, `{"ready":true,"store":"failing","failMode":"open","draining":false}`},
		{down, "closed", 503, `{"ready":false,"store":"failing","failMode":"closed","draining":false}`},
	} {
		cfg := local()
		cfg.Ready, cfg.FailMode = test.ready, test.failMode
		s, stop := serve(t, policies(t), cfg)
		url := "http://" + s.HTTPAddr().String()
		if got := send(t, httpClient(t), http.MethodGet, url+"/readyz", "", ""); got.status != test.status || got.body != test.body {
			t.Errorf("%q: got %d %s, want %d %s", test.failMode, got.status, got.body, test.status, test.body)
		}
		if got := send(t, httpClient(t), http.MethodGet, url+"/healthz", "", ""); got.status != 200 { // alive, ready or not
			t.Errorf("healthz: got %d", got.status)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	health := newHealth()
	health.drain()
	if got := (&doors{health: health, failMode: service.FailOpen}).readinessNow(t.Context()); got.Ready || !got.Draining {
		t.Errorf("draining: got %+v", got)
	}
	if _, err := New(policies(t), Config{FailMode: "ajar"}); !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), "FailMode") {
		t.Errorf("got %v", err)
	}
}

// rubbish encodes every request as something that no message is.
type rubbish struct{ encoding.CodecV2 }

func (rubbish) Marshal(any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer("\xff\xff\xff")}, nil
}

// A stream outlasts the deadlines of other exchanges.
func TestMonitorWatchOutlastsTimeouts(t *testing.T) {
	t.Parallel()
	hub := must(monitor.New(monitor.Config{}))
	health := newHealth()
	d := &doors{limiter: newRateLimiter(policies(t)), health: health, log: discard, monitor: newMonitorDoor(hub, nil, health.draining)}
	s := httptest.NewUnstartedServer(must(newHTTPHandler(d)))
	const timeout = 30 * time.Millisecond
	s.Config.ReadTimeout, s.Config.WriteTimeout = timeout, timeout
	s.Start()
	t.Cleanup(s.Close)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	web := throttlekitv1connect.NewMonitorClient(connect.NewClient(connecthttp.NewTransport(s.Client(), s.URL)))
	stream, err := web.Watch(ctx, &throttlekitv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	untilWatched(t, hub, 1)
	for i := range 3 {
		<-time.After(2 * timeout)
		hub.Decided(denial("five", fmt.Sprint("k", i)))
		if got, err := stream.Receive(); err != nil || got.GetDenial().GetKey() != fmt.Sprint("k", i) {
			t.Fatalf("%d: got %v, %v", i, got, err)
		}
	}
	cancel()
	_ = stream.Close()
	untilWatched(t, hub, 0)
}
