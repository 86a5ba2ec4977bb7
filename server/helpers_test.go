package server

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/api/throttlekit/v1/throttlekitv1connect"
	"github.com/throttlekit/throttlekit-go/budget"
	"github.com/throttlekit/throttlekit-go/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is where manual clocks stand in these tests.
const epoch = 1_795_000_000_000

// named is what all policies of these tests have in common.
type named string

func (n named) Info() service.Info { return service.Info{Name: string(n), Kind: "test"} }
func (named) Close() error         { return nil }

// plain is a policy that can do all that a plain policy can.
type plain struct {
	named

	limiter *throttlekit.Limiter
}

func (p plain) Check(ctx context.Context, key string, cost float64) (throttlekit.Decision, error) {
	return p.limiter.CheckN(ctx, key, cost)
}

func (p plain) CheckMany(ctx context.Context, keys []string, cost float64) ([]throttlekit.Decision, error) {
	return p.limiter.CheckMany(ctx, keys, cost)
}

func (p plain) Peek(ctx context.Context, key string) (throttlekit.Decision, error) {
	return p.limiter.Peek(ctx, key)
}

func (p plain) Forecast(ctx context.Context, key string, cost float64) (throttlekit.Forecast, error) {
	return p.limiter.Forecast(ctx, key, cost)
}

// behaving is a policy whose every answer is an error, a panic or a wait.
type behaving struct {
	named

	behave func(ctx context.Context) error
}

func (b behaving) Check(ctx context.Context, _ string, _ float64) (throttlekit.Decision, error) {
	return throttlekit.Decision{}, b.behave(ctx)
}

func (b behaving) Peek(ctx context.Context, _ string) (throttlekit.Decision, error) {
	return throttlekit.Decision{}, b.behave(ctx)
}

// meter is a policy that can debit and nothing else.
type meter struct {
	named

	meter *budget.Meter
}

func (m meter) Debit(ctx context.Context, key string, tokens int64) (throttlekit.Decision, error) {
	return m.meter.Debit(ctx, key, tokens)
}

// newMeter has ten tokens an hour for each key, by a clock that stands still.
func newMeter(tb testing.TB) *budget.Meter {
	tb.Helper()
	m, err := budget.NewMeter(budget.Config{
		Clock:  throttlekit.NewManualClock(epoch),
		Budget: &budget.Budget{Windows: []budget.Window{{Limit: 10, Width: time.Hour}}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = m.Close() })
	return m
}

// brokenMeter is a policy whose every debit is an error.
type brokenMeter struct {
	named

	err error
}

func (b brokenMeter) Debit(context.Context, string, int64) (throttlekit.Decision, error) {
	return throttlekit.Decision{}, b.err
}

// must makes a value that cannot fail in these tests.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// limiter allows limit requests an hour, by a clock that stands still.
func limiter(limit float64) *throttlekit.Limiter {
	return must(throttlekit.NewLimiter(
		throttlekit.FixedWindow{Limit: limit, Window: time.Hour},
		throttlekit.WithClock(throttlekit.NewManualClock(epoch))))
}

// policies is a service with the policy "five", five units an hour for each key, and others.
func policies(tb testing.TB, others ...service.Policy) *service.Service {
	tb.Helper()
	svc, err := service.New(service.Config{Policies: append([]service.Policy{plain{"five", limiter(5)}}, others...)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = svc.Close() })
	return svc
}

// local is a configuration on free ports.
func local() Config { return Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0"} }

// serve runs a server. stop drains it and returns what Serve returned; the test does so at its end in any case.
func serve(tb testing.TB, svc Service, cfg Config) (s *Server, stop func() error) {
	tb.Helper()
	s, err := New(svc, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done, result := make(chan struct{}), error(nil)
	go func() {
		defer close(done)
		result = s.Serve(ctx)
	}()
	stop = func() error {
		cancel()
		<-done
		return result
	}
	tb.Cleanup(func() { _ = stop() })
	return s, stop
}

// dial is a connection to the gRPC door, as any client of throttlekit.v1 would make it.
func dial(tb testing.TB, s *Server, opts ...grpc.DialOption) *grpc.ClientConn {
	tb.Helper()
	opts = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)
	conn, err := grpc.NewClient(s.GRPCAddr().String(), opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// httpClient is a client of the HTTP door with connections of its own.
func httpClient(tb testing.TB) *http.Client {
	tb.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// stub is what the generated clients of both doors have in common.
type stub = throttlekitv1connect.RateLimiterClient

// grpcStub is the generated gRPC client without its call options.
type grpcStub struct {
	throttlekitv1.RateLimiterClient
}

func (g grpcStub) Check(ctx context.Context, r *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
	return g.RateLimiterClient.Check(ctx, r)
}

func (g grpcStub) CheckMany(ctx context.Context, r *throttlekitv1.CheckManyRequest) (*throttlekitv1.CheckManyResponse, error) {
	return g.RateLimiterClient.CheckMany(ctx, r)
}

func (g grpcStub) Peek(ctx context.Context, r *throttlekitv1.PeekRequest) (*throttlekitv1.PeekResponse, error) {
	return g.RateLimiterClient.Peek(ctx, r)
}

func (g grpcStub) Forecast(ctx context.Context, r *throttlekitv1.ForecastRequest) (*throttlekitv1.ForecastResponse, error) {
	return g.RateLimiterClient.Forecast(ctx, r)
}

func (g grpcStub) Debit(ctx context.Context, r *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error) {
	return g.RateLimiterClient.Debit(ctx, r)
}

func (g grpcStub) Admit(ctx context.Context, r *throttlekitv1.AdmitRequest) (*throttlekitv1.AdmitResponse, error) {
	return g.RateLimiterClient.Admit(ctx, r)
}

func (g grpcStub) Release(ctx context.Context, r *throttlekitv1.ReleaseRequest) (*throttlekitv1.ReleaseResponse, error) {
	return g.RateLimiterClient.Release(ctx, r)
}

func (g grpcStub) Heartbeat(ctx context.Context, r *throttlekitv1.HeartbeatRequest) (*throttlekitv1.HeartbeatResponse, error) {
	return g.RateLimiterClient.Heartbeat(ctx, r)
}

// stubs are clients for every way in: gRPC, and HTTP with JSON and with binary bodies.
func stubs(tb testing.TB, s *Server) map[string]stub {
	tb.Helper()
	over := func(opts ...connecthttp.Option) stub {
		transport := connecthttp.NewTransport(httpClient(tb), "http://"+s.HTTPAddr().String(), opts...)
		return throttlekitv1connect.NewRateLimiterClient(connect.NewClient(transport))
	}
	return map[string]stub{
		"grpc":       grpcStub{throttlekitv1.NewRateLimiterClient(dial(tb, s))},
		"http json":  over(connecthttp.WithProtoJSON()),
		"http proto": over(),
		"http get":   over(connecthttp.WithHTTPGet()),
	}
}

// answered is what the HTTP door answers.
type answered struct {
	status int
	header http.Header
	body   string
}

func send(tb testing.TB, client *http.Client, method, url, contentType, body string) answered {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return answered{res.StatusCode, res.Header, string(text)}
}
