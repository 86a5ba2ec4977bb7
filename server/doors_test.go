package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// told is the code, reason and message of an error, whichever door it came through.
func told(t *testing.T, err error) (codes.Code, string, string) {
	t.Helper()
	if viaConnect, ok := errors.AsType[*connect.Error](err); ok {
		for _, d := range viaConnect.Details() {
			var info errdetails.ErrorInfo
			if proto.Unmarshal(connectproto.ErrorDetailToAny(d).GetValue(), &info) == nil {
				return codes.Code(viaConnect.Code()), info.GetReason(), viaConnect.Message()
			}
		}
		return codes.Code(viaConnect.Code()), "", viaConnect.Message()
	}
	s, ok := status.FromError(err)
	if !ok {
		t.Fatalf("neither a gRPC nor a Connect error: %v", err)
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return s.Code(), info.GetReason(), s.Message()
		}
	}
	return s.Code(), "", s.Message()
}

func TestDecisionsThroughEveryDoor(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, policies(t), local())
	const reset = epoch - epoch%3_600_000 + 3_600_000
	for name, door := range stubs(t, s) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, key := t.Context(), "key of "+name
			want := func(what string, got, want proto.Message, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if !proto.Equal(got, want) {
					t.Errorf("%s:\n got %v\nwant %v", what, got, want)
				}
			}
			d := func(allowed bool, remaining int64) *throttlekitv1.Decision {
				d := &throttlekitv1.Decision{Allowed: allowed, Limit: 5, Remaining: remaining, ResetAt: reset}
				if !allowed {
					d.RetryAfterMs = reset - epoch
				}
				return d
			}

			check, err := door.Check(ctx, &throttlekitv1.CheckRequest{Policy: "five", Key: key})
			want("a cost of 0 charges 1", check, &throttlekitv1.CheckResponse{Decision: d(true, 4)}, err)
			check, err = door.Check(ctx, &throttlekitv1.CheckRequest{Policy: "five", Key: key, Cost: 3})
			want("a cost", check, &throttlekitv1.CheckResponse{Decision: d(true, 1)}, err)
			check, err = door.Check(ctx, &throttlekitv1.CheckRequest{Policy: "five", Key: key, Cost: 2})
			want("a denial is an answer", check, &throttlekitv1.CheckResponse{Decision: d(false, 1)}, err)
			check, err = door.Check(ctx, &throttlekitv1.CheckRequest{Policy: "five", Key: key, Cost: throttlekit.MaxSafe})
			want("the largest cost", check, &throttlekitv1.CheckResponse{Decision: d(false, 1)}, err)

			peek, err := door.Peek(ctx, &throttlekitv1.PeekRequest{Policy: "five", Key: key})
			want("peek", peek, &throttlekitv1.PeekResponse{Decision: d(true, 1)}, err)

			forecast, err := door.Forecast(ctx, &throttlekitv1.ForecastRequest{Policy: "five", Key: key})
			want("forecast", forecast, &throttlekitv1.ForecastResponse{
				Forecast: &throttlekitv1.Forecast{SpendableNow: 1, NextReplenishAt: reset, FullAt: reset},
			}, err)

			many, err := door.CheckMany(ctx, &throttlekitv1.CheckManyRequest{Policy: "five", Keys: []string{key, "other" + key, key}})
			want("many, in order", many, &throttlekitv1.CheckManyResponse{
				Decisions: []*throttlekitv1.Decision{d(true, 0), d(true, 4), d(false, 0)},
			}, err)
			many, err = door.CheckMany(ctx, &throttlekitv1.CheckManyRequest{Policy: "five"})
			want("none", many, &throttlekitv1.CheckManyResponse{}, err)
		})
	}
}

func TestErrorsThroughEveryDoor(t *testing.T) {
	t.Parallel()
	fails := func(name string, err error) behaving {
		return behaving{named(name), func(context.Context) error { return err }}
	}
	svc := policies(t,
		fails("down", fmt.Errorf("%w: no route to redis", throttlekit.ErrStoreUnavailable)),
		fails("closed", throttlekit.ErrClosed),
		fails("nested", fmt.Errorf("%w: %w: %w", throttlekit.ErrStoreUnavailable,
			status.Error(codes.PermissionDenied, "of a store"), connect.NewError(connect.CodeAborted, "of a store"))),
		fails("odd", errors.New("the moon is full\xff")),
		fails("late", fmt.Errorf("reading: %w", context.DeadlineExceeded)),
		fails("gone", context.Canceled),
		behaving{"panics", func(context.Context) error { panic("secret") }},
		meter{"tokens", newMeter(t)},
		brokenMeter{"broke", fmt.Errorf("%w: no route to redis", throttlekit.ErrStoreUnavailable)},
		brokenMeter{"oddmeter", errors.New("the moon is full")},
	)
	var log syncBuffer
	cfg := local()
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s, _ := serve(t, svc, cfg)

	check := func(policy, key string, cost int64) func(context.Context, stub) error {
		return func(ctx context.Context, door stub) error {
			_, err := door.Check(ctx, &throttlekitv1.CheckRequest{Policy: policy, Key: key, Cost: cost})
			return err
		}
	}
	peek := func(policy string) func(context.Context, stub) error {
		return func(ctx context.Context, door stub) error {
			_, err := door.Peek(ctx, &throttlekitv1.PeekRequest{Policy: policy})
			return err
		}
	}
	debit := func(policy, key string, tokens int64) func(context.Context, stub) error {
		return func(ctx context.Context, door stub) error {
			_, err := door.Debit(ctx, &throttlekitv1.DebitRequest{Policy: policy, Key: key, Tokens: tokens})
			return err
		}
	}
	tests := []struct {
		name    string
		call    func(context.Context, stub) error
		code    codes.Code
		reason  string
		message string // a part of it
	}{
		{"unknown policy", check("nine", "k", 1), codes.NotFound, "POLICY_NOT_FOUND", `"nine"; configured: "five"`},
		{"empty policy", check("", "k", 1), codes.NotFound, "POLICY_NOT_FOUND", `"five"`},
		{"negative cost", check("five", "k", -1), codes.InvalidArgument, "INVALID", "cost"},
		{"cost beyond 2^53-1", check("five", "k", throttlekit.MaxSafe+1), codes.InvalidArgument, "INVALID", "cost"},
		{"largest int64", check("five", "k", 1<<63-1), codes.InvalidArgument, "INVALID", "cost"},
		{"smallest int64", check("five", "k", -1<<63), codes.InvalidArgument, "INVALID", "cost"},
		{"long key", check("five", strings.Repeat("k", 64<<10+1), 1), codes.InvalidArgument, "INVALID", "key"},
		{"longest key", check("five", strings.Repeat("k", 64<<10), 1), codes.OK, "", ""},
		{"peek at a broken store", peek("down"), codes.Unavailable, "STORE_UNAVAILABLE", "no route"},
		{"a store's status is not the server's", peek("nested"), codes.Unavailable, "STORE_UNAVAILABLE", "of a store"},
		{"check on a broken store fails open", check("down", "k", 1), codes.OK, "", ""},
		{"closed", peek("closed"), codes.Unavailable, "CLOSED", "closed"},
		{"unforeseen", peek("odd"), codes.Internal, "", "the moon is full\uFFFD"},
		{"late", peek("late"), codes.DeadlineExceeded, "", "reading"},
		{"gone", peek("gone"), codes.Canceled, "", "canceled"},
		{"panic", peek("panics"), codes.Internal, "", "the server failed"},
		{"peek is not everyone's", func(ctx context.Context, door stub) error {
			_, err := door.Forecast(ctx, &throttlekitv1.ForecastRequest{Policy: "down"})
			return err
		}, codes.Unimplemented, "UNSUPPORTED", `"down"`},
		{"forecast with a negative cost", func(ctx context.Context, door stub) error {
			_, err := door.Forecast(ctx, &throttlekitv1.ForecastRequest{Policy: "five", Cost: -1})
			return err
		}, codes.InvalidArgument, "INVALID", "cost"},
		{"many at a negative cost", func(ctx context.Context, door stub) error {
			_, err := door.CheckMany(ctx, &throttlekitv1.CheckManyRequest{Policy: "five", Cost: -1})
			return err
		}, codes.InvalidArgument, "INVALID", "cost"},
		{"debit", func(ctx context.Context, door stub) error {
			_, err := door.Debit(ctx, &throttlekitv1.DebitRequest{Policy: "five"})
			return err
		}, codes.Unimplemented, "UNSUPPORTED", `policy "five" of kind test cannot debit`},
		{"debit of an unknown policy", func(ctx context.Context, door stub) error {
			_, err := door.Debit(ctx, &throttlekitv1.DebitRequest{Policy: "nine"})
			return err
		}, codes.NotFound, "POLICY_NOT_FOUND", `configured: "five"`},
		{"negative debit", debit("tokens", "k", -1), codes.InvalidArgument, "INVALID", "tokens must be an integer from 1 to 9007199254740991, got -1"},
		{"debit beyond 2^53-1", debit("tokens", "k", throttlekit.MaxSafe+1), codes.InvalidArgument, "INVALID", "tokens"},
		{"largest int64 debited", debit("tokens", "k", 1<<63-1), codes.InvalidArgument, "INVALID", "tokens"},
		{"smallest int64 debited", debit("tokens", "k", -1<<63), codes.InvalidArgument, "INVALID", "tokens"},
		{"debit of a long key", debit("tokens", strings.Repeat("k", 64<<10+1), 1), codes.InvalidArgument, "INVALID", "key"},
		{"debit on a broken store fails open", debit("broke", "k", 1), codes.OK, "", ""},
		{"debit that fails unforeseen", debit("oddmeter", "k", 1), codes.Internal, "", "the moon is full"},
		{"check of a meter", check("tokens", "k", 1), codes.Unimplemented, "UNSUPPORTED", `policy "tokens" of kind test cannot check`},
		{"peek at a meter", peek("tokens"), codes.Unimplemented, "UNSUPPORTED", `policy "tokens" of kind test cannot peek`},
		{"admit", func(ctx context.Context, door stub) error {
			_, err := door.Admit(ctx, &throttlekitv1.AdmitRequest{Policy: "five"})
			return err
		}, codes.Unimplemented, "UNSUPPORTED", `policy "five" of kind test cannot admit`},
		{"admit to an unknown policy", func(ctx context.Context, door stub) error {
			_, err := door.Admit(ctx, &throttlekitv1.AdmitRequest{Policy: "nine"})
			return err
		}, codes.NotFound, "POLICY_NOT_FOUND", `"nine"`},
	}
	for name, door := range stubs(t, s) {
		for _, test := range tests {
			err := test.call(t.Context(), door)
			if test.code == codes.OK {
				if err != nil {
					t.Errorf("%s, %s: %v", name, test.name, err)
				}
				continue
			}
			code, reason, message := told(t, err)
			if code != test.code || reason != test.reason || !strings.Contains(message, test.message) {
				t.Errorf("%s, %s: got %v %q %q, want %v %q with %q",
					name, test.name, code, reason, message, test.code, test.reason, test.message)
			}
		}
	}
	for _, wanted := range []string{"the moon is full", "panic in a handler", "panic=secret"} {
		if !strings.Contains(log.String(), wanted) {
			t.Errorf("the log says nothing of %q", wanted)
		}
	}
}

// A service need not be an Admitter. Over one that is none, what belongs to admission is not there.
func TestServiceThatAdmitsNothing(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, struct{ Service }{policies(t)}, local())
	for name, door := range stubs(t, s) {
		for _, test := range []struct {
			call    func(ctx context.Context) error
			code    codes.Code
			message string
		}{
			{func(ctx context.Context) error {
				_, err := door.Admit(ctx, &throttlekitv1.AdmitRequest{Policy: "five"})
				return err
			}, codes.Unimplemented, `policy "five" has no concurrency axis`},
			{func(ctx context.Context) error {
				_, err := door.Admit(ctx, &throttlekitv1.AdmitRequest{Policy: "nine"})
				return err
			}, codes.NotFound, `"nine"`},
			{func(ctx context.Context) error {
				_, err := door.Release(ctx, &throttlekitv1.ReleaseRequest{LeaseId: "1"})
				return err
			}, codes.Unimplemented, "leases"},
			{func(ctx context.Context) error {
				_, err := door.Heartbeat(ctx, &throttlekitv1.HeartbeatRequest{})
				return err
			}, codes.Unimplemented, "leases"},
		} {
			if code, _, message := told(t, test.call(t.Context())); code != test.code || !strings.Contains(message, test.message) {
				t.Errorf("%s: got %v %q, want %v with %q", name, code, message, test.code, test.message)
			}
		}
	}
}

// syncBuffer is a log that may be read while it is written.
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

func TestDeadlineReachesTheService(t *testing.T) {
	t.Parallel()
	waits := behaving{"waits", func(ctx context.Context) error {
		<-ctx.Done()
		return fmt.Errorf("%w: %w", throttlekit.ErrStoreUnavailable, ctx.Err())
	}}
	s, _ := serve(t, policies(t, waits), local())
	for name, door := range stubs(t, s) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := door.Peek(ctx, &throttlekitv1.PeekRequest{Policy: "waits"})
			if code, _, _ := told(t, err); code != codes.DeadlineExceeded {
				t.Errorf("got %v, want DEADLINE_EXCEEDED", err)
			}
		})
	}
}

func TestExplainBlamesTheCallerWhoLeft(t *testing.T) {
	t.Parallel()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	down := fmt.Errorf("%w: %w", throttlekit.ErrStoreUnavailable, context.DeadlineExceeded)
	for _, test := range []struct {
		name string
		ctx  context.Context
		err  error
		want codes.Code
	}{
		{"a store that timed out by itself", t.Context(), down, codes.Unavailable},
		{"a store that stopped with its caller", gone, down, codes.Canceled},
		{"a wrong request stays wrong", gone, throttlekit.ErrInvalid, codes.InvalidArgument},
	} {
		if got := explain(test.ctx, test.err).code; got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func TestMessagesFitInHeaders(t *testing.T) {
	t.Parallel()
	f := explain(t.Context(), errors.New(strings.Repeat("…", 100_000)))
	if len(f.message) > 5000 || !utf8.ValidString(f.message) {
		t.Errorf("%d bytes: …%q", len(f.message), f.message[len(f.message)-10:])
	}
}

func TestUnservedServicesAreUnimplemented(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, policies(t), local())
	conn := dial(t, s)
	for name, call := range map[string]func() error{
		"fleet": func() error {
			_, err := throttlekitv1.NewFleetClient(conn).Reserve(t.Context(), &throttlekitv1.ReserveRequest{Policy: "five"})
			return err
		},
		"monitor": func() error {
			_, err := throttlekitv1.NewMonitorClient(conn).GetSnapshot(t.Context(), &throttlekitv1.GetSnapshotRequest{})
			return err
		},
		"a method of tomorrow": func() error {
			return conn.Invoke(t.Context(), "/throttlekit.v1.RateLimiter/Guess", &throttlekitv1.CheckRequest{}, &throttlekitv1.CheckResponse{})
		},
	} {
		if err := call(); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: got %v, want UNIMPLEMENTED", name, err)
		}
	}
}

func TestOversizedMessageIsRefused(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, policies(t), local())
	for name, door := range stubs(t, s) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "http get" {
				t.Skip("no URL is that long")
			}
			_, err := door.Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "five", Key: strings.Repeat("k", maxMessage+1)})
			if code, _, _ := told(t, err); code != codes.ResourceExhausted {
				t.Errorf("got %v, want RESOURCE_EXHAUSTED", err)
			}
		})
	}
}

func TestGzipIsUnderstood(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, policies(t), local())
	client := throttlekitv1.NewRateLimiterClient(dial(t, s))
	if _, err := client.Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "five"}, grpc.UseCompressor("gzip")); err != nil {
		t.Error(err)
	}
}
