package client

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a service whose every answer is scripted.
type fake struct {
	throttlekitv1.UnimplementedRateLimiterServer

	check     func(ctx context.Context, req *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error)
	checkMany func(req *throttlekitv1.CheckManyRequest) (*throttlekitv1.CheckManyResponse, error)
	peek      func(req *throttlekitv1.PeekRequest) (*throttlekitv1.PeekResponse, error)
	forecast  func(req *throttlekitv1.ForecastRequest) (*throttlekitv1.ForecastResponse, error)
	debit     func(ctx context.Context, req *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error)
}

func (f *fake) Check(ctx context.Context, req *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
	return f.check(ctx, req)
}

func (f *fake) CheckMany(_ context.Context, req *throttlekitv1.CheckManyRequest) (*throttlekitv1.CheckManyResponse, error) {
	return f.checkMany(req)
}

func (f *fake) Peek(_ context.Context, req *throttlekitv1.PeekRequest) (*throttlekitv1.PeekResponse, error) {
	return f.peek(req)
}

func (f *fake) Forecast(_ context.Context, req *throttlekitv1.ForecastRequest) (*throttlekitv1.ForecastResponse, error) {
	return f.forecast(req)
}

func (f *fake) Debit(ctx context.Context, req *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error) {
	return f.debit(ctx, req)
}

// serve runs a plain grpc-go server with f and returns where.
func serve(tb testing.TB, f *fake, opts ...grpc.ServerOption) string {
	tb.Helper()
	return serveAt(tb, "tcp", "127.0.0.1:0", f, opts...)
}

func serveAt(tb testing.TB, network, addr string, f *fake, opts ...grpc.ServerOption) string {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), network, addr)
	if err != nil {
		tb.Fatal(err)
	}
	serveOn(tb, l, f, opts...)
	return l.Addr().String()
}

func serveOn(tb testing.TB, l net.Listener, f *fake, opts ...grpc.ServerOption) {
	tb.Helper()
	s := grpc.NewServer(opts...)
	throttlekitv1.RegisterRateLimiterServer(s, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	tb.Cleanup(func() {
		s.Stop()
		<-done
	})
}

func dial(tb testing.TB, addr string, opts ...Option) *Client {
	tb.Helper()
	patient := WithTimeout(30 * time.Second) // a busy machine must not fail tests that are about something else
	c, err := Dial(addr, append([]Option{patient}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// nowhere is a target that nobody serves, and that no other test can take.
func nowhere(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "tk") //nolint:usetesting // TempDir has the test's name in it, and socket names must be short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return "unix://" + filepath.Join(dir, "socket")
}

// fails is a service that answers every call with err.
func fails(err error) *fake {
	return &fake{
		check: func(context.Context, *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
			return nil, err
		},
		checkMany: func(*throttlekitv1.CheckManyRequest) (*throttlekitv1.CheckManyResponse, error) { return nil, err },
		peek:      func(*throttlekitv1.PeekRequest) (*throttlekitv1.PeekResponse, error) { return nil, err },
		forecast:  func(*throttlekitv1.ForecastRequest) (*throttlekitv1.ForecastResponse, error) { return nil, err },
		debit: func(context.Context, *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error) {
			return nil, err
		},
	}
}

// hangs is a service that answers no check before its caller leaves, and tells when one has come.
func hangs() (f *fake, entered chan struct{}) {
	entered = make(chan struct{}, 16)
	return &fake{check: func(ctx context.Context, _ *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}}, entered
}

func TestTranslation(t *testing.T) {
	t.Parallel()
	var asked []proto.Message
	wire := &throttlekitv1.Decision{Allowed: true, Limit: 1, Remaining: 2, ResetAt: 3, RetryAfterMs: 4}
	c := dial(t, serve(t, &fake{
		check: func(_ context.Context, req *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
			asked = append(asked, req)
			return &throttlekitv1.CheckResponse{Decision: wire}, nil
		},
		checkMany: func(req *throttlekitv1.CheckManyRequest) (*throttlekitv1.CheckManyResponse, error) {
			asked = append(asked, req)
			return &throttlekitv1.CheckManyResponse{Decisions: []*throttlekitv1.Decision{wire, {Limit: 9}}}, nil
		},
		peek: func(req *throttlekitv1.PeekRequest) (*throttlekitv1.PeekResponse, error) {
			asked = append(asked, req)
			return &throttlekitv1.PeekResponse{Decision: wire}, nil
		},
		forecast: func(req *throttlekitv1.ForecastRequest) (*throttlekitv1.ForecastResponse, error) {
			asked = append(asked, req)
			return &throttlekitv1.ForecastResponse{Forecast: &throttlekitv1.Forecast{SpendableNow: 1, NextReplenishAt: 2, FullAt: 3}}, nil
		},
		debit: func(_ context.Context, req *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error) {
			asked = append(asked, req)
			return &throttlekitv1.DebitResponse{Decision: wire}, nil
		},
	}))
	want := throttlekit.Decision{Allowed: true, Limit: 1, Remaining: 2, ResetAtMillis: 3, RetryAfterMillis: 4}
	b, ctx := c.Bind("p"), t.Context()
	if b.Policy() != "p" {
		t.Errorf("bound to %q", b.Policy())
	}
	expect := func(what string, got throttlekit.Decision, err error) {
		t.Helper()
		if got != want || err != nil {
			t.Errorf("%s: got %+v %v, want %+v", what, got, err, want)
		}
	}
	d, err := b.Check(ctx, "k")
	expect("check", d, err)
	d, err = b.CheckN(ctx, "k", throttlekit.MaxSafe)
	expect("check n", d, err)
	d, err = b.Peek(ctx, "k")
	expect("peek", d, err)
	many, err := b.CheckMany(ctx, []string{"a", "b"}, 2)
	if err != nil || len(many) != 2 || many[0] != want || many[1] != (throttlekit.Decision{Limit: 9}) {
		t.Errorf("check many: got %+v %v", many, err)
	}
	forecast, err := b.Forecast(ctx, "k", 3)
	if err != nil || forecast != (throttlekit.Forecast{SpendableNow: 1, NextReplenishAtMillis: 2, FullAtMillis: 3}) {
		t.Errorf("forecast: got %+v %v", forecast, err)
	}
	d, err = b.Debit(ctx, "k", 4)
	expect("debit", d, err)
	for i, want := range []proto.Message{
		&throttlekitv1.CheckRequest{Policy: "p", Key: "k", Cost: 1},
		&throttlekitv1.CheckRequest{Policy: "p", Key: "k", Cost: throttlekit.MaxSafe},
		&throttlekitv1.PeekRequest{Policy: "p", Key: "k"},
		&throttlekitv1.CheckManyRequest{Policy: "p", Keys: []string{"a", "b"}, Cost: 2},
		&throttlekitv1.ForecastRequest{Policy: "p", Key: "k", Cost: 3},
		&throttlekitv1.DebitRequest{Policy: "p", Key: "k", Tokens: 4},
	} {
		if !proto.Equal(asked[i], want) {
			t.Errorf("request %d: got %v, want %v", i, asked[i], want)
		}
	}
}

func TestInvalidCostsStayHere(t *testing.T) {
	t.Parallel()
	for _, mode := range []Unavailable{ReturnError, FailOpen, FailClosed} {
		c := dial(t, nowhere(t), WithUnavailable(mode)) // whoever asks there fails otherwise
		for _, cost := range []int64{0, -1, math.MinInt64, throttlekit.MaxSafe + 1, math.MaxInt64} {
			_, err1 := c.CheckN(t.Context(), "p", "k", cost)
			_, err2 := c.CheckMany(t.Context(), "p", []string{"k"}, cost)
			_, err3 := c.Forecast(t.Context(), "p", "k", cost)
			_, err4 := c.Debit(t.Context(), "p", "k", cost)
			for _, err := range []error{err1, err2, err3, err4} {
				if !errors.Is(err, throttlekit.ErrInvalid) {
					t.Errorf("cost %d: got %v, want ErrInvalid", cost, err)
				}
			}
		}
	}
}

func detailed(code codes.Code, domain, reason string) error {
	s, err := status.New(code, "as told").WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: reason})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func TestErrorsByStatus(t *testing.T) {
	t.Parallel()
	sentinels := []error{
		throttlekit.ErrInvalid, throttlekit.ErrPolicyNotFound, throttlekit.ErrUnsupported, throttlekit.ErrStoreUnavailable,
		throttlekit.ErrClosed, ErrUnavailable, context.Canceled, context.DeadlineExceeded,
	}
	for _, test := range []struct {
		name   string
		answer error
		want   error // nil for none of the sentinels
	}{
		{"invalid", status.Error(codes.InvalidArgument, "as told"), throttlekit.ErrInvalid},
		{"not found", status.Error(codes.NotFound, "as told"), throttlekit.ErrPolicyNotFound},
		{"unsupported", status.Error(codes.Unimplemented, "as told"), throttlekit.ErrUnsupported},
		{"unavailable", status.Error(codes.Unavailable, "as told"), ErrUnavailable},
		{"store", detailed(codes.Unavailable, "throttlekit.v1", "STORE_UNAVAILABLE"), throttlekit.ErrStoreUnavailable},
		{"closed service", detailed(codes.Unavailable, "throttlekit.v1", "CLOSED"), ErrUnavailable},
		{"another's store", detailed(codes.Unavailable, "elsewhere", "STORE_UNAVAILABLE"), ErrUnavailable},
		{"deadline that nobody set", status.Error(codes.DeadlineExceeded, "as told"), ErrUnavailable},
		{"cancelled on the way", status.Error(codes.Canceled, "as told"), nil},
		{"internal", status.Error(codes.Internal, "as told"), nil},
		{"unknown", status.Error(codes.Unknown, "as told"), nil},
		{"denied", status.Error(codes.PermissionDenied, "as told"), nil},
		{"too large", status.Error(codes.ResourceExhausted, "as told"), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, serve(t, fails(test.answer)))
			_, err1 := c.Check(t.Context(), "p", "k")
			_, err2 := c.CheckMany(t.Context(), "p", []string{"k"}, 1)
			_, err3 := c.Peek(t.Context(), "p", "k")
			_, err4 := c.Forecast(t.Context(), "p", "k", 1)
			_, err5 := c.Debit(t.Context(), "p", "k", 1)
			for i, err := range []error{err1, err2, err3, err4, err5} {
				for _, sentinel := range sentinels {
					if got, want := errors.Is(err, sentinel), errors.Is(sentinel, test.want); got != want {
						t.Errorf("call %d: %v: is %q: got %v, want %v", i, err, sentinel, got, want)
					}
				}
				var carrier interface{ GRPCStatus() *status.Status }
				if st, ok := status.FromError(err); !ok || st.Code() != status.Code(test.answer) || !errors.As(err, &carrier) {
					t.Errorf("call %d: the status of %v is %v, want %v", i, err, st, test.answer)
				}
				if !strings.Contains(err.Error(), "as told") {
					t.Errorf("call %d: %q does not carry the service's words", i, err)
				}
			}
		})
	}
}

func TestBreachesOfContract(t *testing.T) {
	t.Parallel()
	c := dial(t, serve(t, &fake{
		check: func(context.Context, *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
			return &throttlekitv1.CheckResponse{}, nil
		},
		checkMany: func(req *throttlekitv1.CheckManyRequest) (*throttlekitv1.CheckManyResponse, error) {
			return &throttlekitv1.CheckManyResponse{Decisions: make([]*throttlekitv1.Decision, len(req.GetKeys())-1)}, nil
		},
		peek: func(*throttlekitv1.PeekRequest) (*throttlekitv1.PeekResponse, error) {
			return &throttlekitv1.PeekResponse{}, nil
		},
		forecast: func(*throttlekitv1.ForecastRequest) (*throttlekitv1.ForecastResponse, error) {
			return &throttlekitv1.ForecastResponse{}, nil
		},
		debit: func(context.Context, *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error) {
			return &throttlekitv1.DebitResponse{}, nil
		},
	}), WithUnavailable(FailOpen))
	_, err1 := c.Check(t.Context(), "p", "k")
	_, err2 := c.CheckMany(t.Context(), "p", []string{"k", "l"}, 1)
	_, err3 := c.Peek(t.Context(), "p", "k")
	_, err4 := c.Forecast(t.Context(), "p", "k", 1)
	_, err5 := c.Debit(t.Context(), "p", "k", 1)
	for i, err := range []error{err1, err2, err3, err4, err5} {
		if err == nil {
			t.Errorf("call %d: no error", i)
		}
	}
	if c.Degraded() != 0 {
		t.Errorf("%d calls degraded", c.Degraded())
	}
}

// bytesCodec reads requests as bytes, on a server that answers itself.
type bytesCodec struct{ seen *atomic.Pointer[[]byte] }

func (bytesCodec) Name() string { return "proto" }

func (c bytesCodec) Unmarshal(data mem.BufferSlice, _ any) error {
	raw := data.Materialize()
	c.seen.Store(&raw)
	return nil
}

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	raw, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(raw)}, err
}

func TestKeysAreBytes(t *testing.T) {
	t.Parallel()
	var seen atomic.Pointer[[]byte]
	f := &fake{
		check: func(context.Context, *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
			return &throttlekitv1.CheckResponse{Decision: &throttlekitv1.Decision{}}, nil
		},
		checkMany: func(*throttlekitv1.CheckManyRequest) (*throttlekitv1.CheckManyResponse, error) {
			return &throttlekitv1.CheckManyResponse{Decisions: make([]*throttlekitv1.Decision, 3)}, nil
		},
	}
	c := dial(t, serve(t, f, grpc.ForceServerCodecV2(bytesCodec{&seen})))
	for _, key := range []string{"", "text", "\x00", "🚦", "\xff", "a\xfe\x00", "\xed\xa0\x80", strings.Repeat("\xff", 64<<10)} {
		if _, err := c.CheckN(t.Context(), "p", key, 7); err != nil {
			t.Errorf("%.20q: %v", key, err)
			continue
		}
		got := map[protowire.Number]string{}
		for data := *seen.Load(); len(data) > 0; {
			number, kind, tag := protowire.ConsumeTag(data)
			size := protowire.ConsumeFieldValue(number, kind, data[tag:])
			if tag < 0 || size < 0 {
				t.Fatalf("%.20q: the request is no protobuf", key)
			}
			if kind == protowire.BytesType {
				text, _ := protowire.ConsumeBytes(data[tag:])
				got[number] = string(text)
			} else if cost, _ := protowire.ConsumeVarint(data[tag:]); number == 3 && cost == 7 {
				got[number] = "7"
			}
			data = data[tag+size:]
		}
		if got[1] != "p" || got[2] != key || got[3] != "7" {
			t.Errorf("%.20q: sent %.60q", key, got)
		}
	}
	if _, err := c.CheckMany(t.Context(), "p", []string{"a", "\xff", "b"}, 1); err != nil && !errors.Is(err, errEmpty) {
		t.Error(err)
	}
	want := "\n\x01p\x12\x01a\x12\x01\xff\x12\x01b\x18\x01"
	if got := string(*seen.Load()); got != want {
		t.Errorf("many: sent %q, want %q", got, want)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	conn, err := grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	anyway := WithDialOptions(grpc.WithTransportCredentials(insecure.NewCredentials()))
	for _, test := range []struct {
		name string
		addr string
		opts []Option
		want string // a part of the error; empty for none
	}{
		{"loopback", "127.0.0.1:50051", nil, ""},
		{"loopback by name", "localhost:50051", nil, ""},
		{"the other loopback", "[::1]:50051", nil, ""},
		{"a target of grpc-go", "dns:///localhost:50051", nil, ""},
		{"a socket", "unix:///run/throttlekit.sock", nil, ""},
		{"elsewhere", "limits.example:50051", nil, "WithPlaintext"},
		{"elsewhere by address", "192.0.2.1:50051", nil, "WithTLS"},
		{"everywhere", ":50051", nil, "WithTLS"},
		{"a target elsewhere", "dns:///limits.example:50051", nil, "WithTLS"},
		{"a target by another authority", "dns://127.0.0.1/limits.example:50051", nil, "WithTLS"},
		{"a resolver that may lead anywhere", "xds:///127.0.0.1:1", nil, "WithTLS"},
		{"elsewhere in plaintext", "limits.example:50051", []Option{WithPlaintext()}, ""},
		{"elsewhere by TLS", "limits.example:50051", []Option{WithTLS(&tls.Config{})}, ""},
		{"elsewhere by own means", "limits.example:50051", []Option{anyway}, ""},
		{"no port", "localhost", nil, "host:port"},
		{"nothing", "", nil, "host:port"},
		{"TLS in plaintext", "127.0.0.1:1", []Option{WithTLS(&tls.Config{}), WithPlaintext()}, "WithTLS"},
		{"negative timeout", "127.0.0.1:1", []Option{WithTimeout(-1)}, "timeout"},
		{"no such mode", "127.0.0.1:1", []Option{WithUnavailable(3)}, "unavailable"},
		{"a connection", "", []Option{WithConn(conn)}, ""},
		{"a connection and TLS", "", []Option{WithConn(conn), WithTLS(&tls.Config{})}, "WithConn"},
		{"two at once", "limits.example:1", []Option{WithTimeout(-1)}, "WithTLS"},
	} {
		c, err := Dial(test.addr, test.opts...)
		if err == nil {
			_ = c.Close()
		}
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (!errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want ErrInvalid with %q", test.name, err, test.want)
		}
	}
}

func TestCloseOfClient(t *testing.T) {
	t.Parallel()
	f, entered := hangs()
	addr := serve(t, f)
	for _, mode := range []Unavailable{ReturnError, FailOpen} {
		c := dial(t, addr, WithUnavailable(mode), WithTimeout(time.Minute))
		running := make(chan error, 1)
		go func() {
			_, err := c.Check(t.Context(), "p", "k")
			running <- err
		}()
		<-entered
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-running; !errors.Is(err, throttlekit.ErrClosed) {
			t.Errorf("a running call: got %v, want ErrClosed", err)
		}
		if _, err := c.Check(t.Context(), "p", "k"); !errors.Is(err, throttlekit.ErrClosed) {
			t.Errorf("a later call: got %v, want ErrClosed", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
	}
}

func TestBorrowedConnectionStaysOpen(t *testing.T) {
	t.Parallel()
	conn, err := grpc.NewClient(serve(t, fails(status.Error(codes.NotFound, "no"))), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := dial(t, "", WithConn(conn))
	if _, err := c.Check(t.Context(), "p", "\xff"); !errors.Is(err, throttlekit.ErrPolicyNotFound) && !errors.Is(err, throttlekit.ErrInvalid) && status.Code(err) != codes.Internal {
		t.Errorf("got %v", err) // the plain server may refuse the key, but the client must not
	}
	_ = c.Close()
	if _, err := c.Check(t.Context(), "p", "k"); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("after Close: got %v, want ErrClosed", err)
	}
	if _, err := throttlekitv1.NewRateLimiterClient(conn).Peek(t.Context(), &throttlekitv1.PeekRequest{}); status.Code(err) != codes.NotFound {
		t.Errorf("after Close: got %v", err)
	}
}
