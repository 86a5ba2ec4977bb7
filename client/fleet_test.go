package client

import (
	"context"
	"errors"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/lease"
)

// fakeFleet is a service that lends as it is told.
type fakeFleet struct {
	throttlekitv1.UnimplementedFleetServer

	reserve func(ctx context.Context, req *throttlekitv1.ReserveRequest) (*throttlekitv1.Lease, error)
}

func (f *fakeFleet) Reserve(ctx context.Context, req *throttlekitv1.ReserveRequest) (*throttlekitv1.ReserveResponse, error) {
	l, err := f.reserve(ctx, req)
	return &throttlekitv1.ReserveResponse{Lease: l}, err
}

// serveFleet runs a plain grpc-go server that lends so, and returns where.
func serveFleet(tb testing.TB, reserve func(context.Context, *throttlekitv1.ReserveRequest) (*throttlekitv1.Lease, error)) string {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := grpc.NewServer()
	throttlekitv1.RegisterFleetServer(s, &fakeFleet{reserve: reserve})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	tb.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l.Addr().String()
}

func TestReserveTranslation(t *testing.T) {
	t.Parallel()
	var asked *throttlekitv1.ReserveRequest
	var headers metadata.MD
	answer := &throttlekitv1.Lease{Capacity: 3, ExpiryMs: 60_000, RefreshIntervalMs: 40_000, SafeCapacity: 3, Limit: 9}
	addr := serveFleet(t, func(ctx context.Context, req *throttlekitv1.ReserveRequest) (*throttlekitv1.Lease, error) {
		asked = req
		headers, _ = metadata.FromIncomingContext(ctx)
		return answer, nil
	})
	c := dial(t, addr, WithFleetSecret("s3cret"))
	g, err := c.Fleet().Reserve(t.Context(), "p", "d", 5)
	if want := (lease.Grant{Units: 3, Limit: 9, ResetAtMillis: 60_000, ResetsIn: 40 * time.Second, Lasts: 40 * time.Second}); g != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", g, err, want)
	}
	want := &throttlekitv1.ReserveRequest{
		Policy: "p", Caller: &throttlekitv1.Caller{Domain: "d"}, Wants: 5, Axis: throttlekitv1.Axis_AXIS_RATE,
	}
	if !proto.Equal(asked, want) || strings.Join(headers.Get("x-fleet-secret"), ",") != "s3cret" {
		t.Errorf("asked %v with %v", asked, headers)
	}

	answer = &throttlekitv1.Lease{ExpiryMs: 60_000, RefreshIntervalMs: 40_000, RetryAfterMs: 39_999, Limit: 9}
	g, err = c.Fleet().Reserve(t.Context(), "p", "d", 5)
	denial := throttlekit.Decision{Limit: 9, ResetAtMillis: 60_000, RetryAfterMillis: 39_999}
	if g != (lease.Grant{Limit: 9, Denial: denial}) || err != nil {
		t.Errorf("got %+v, %v", g, err)
	}

	if _, err := dial(t, addr).Fleet().Reserve(t.Context(), "p", "d", 5); err != nil || len(headers.Get("x-fleet-secret")) != 0 {
		t.Errorf("got %v with %v, want no secret", err, headers)
	}
}

// What a service must not answer is an error, so that neither its mistakes nor its malice reach the limit.
func TestReserveMistrusts(t *testing.T) {
	t.Parallel()
	var answer *throttlekitv1.Lease
	c := dial(t, serveFleet(t, func(context.Context, *throttlekitv1.ReserveRequest) (*throttlekitv1.Lease, error) { return answer, nil }))
	for _, answer = range []*throttlekitv1.Lease{
		nil,
		{Capacity: 6, RefreshIntervalMs: 1000, Limit: 9},
		{Capacity: -1, RefreshIntervalMs: 1000, Limit: 9},
		{Capacity: math.MinInt64, RefreshIntervalMs: 1000, Limit: 9},
		{Capacity: 5, RefreshIntervalMs: 0, Limit: 9},
		{Capacity: 5, RefreshIntervalMs: -1, Limit: 9},
		{Capacity: 5, RefreshIntervalMs: 1000, Limit: -1},
	} {
		if g, err := c.Fleet().Reserve(t.Context(), "p", "", 5); err == nil || g != (lease.Grant{}) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%v: got %+v, %v, want an error", answer, g, err)
		}
	}
	answer = &throttlekitv1.Lease{Capacity: 5, RefreshIntervalMs: math.MaxInt64, Limit: 9}
	if g, err := c.Fleet().Reserve(t.Context(), "p", "", 5); err != nil || g.Lasts < 200*365*24*time.Hour {
		t.Errorf("got %+v, %v", g, err)
	}
	answer = &throttlekitv1.Lease{RetryAfterMs: -5}
	if g, err := c.Fleet().Reserve(t.Context(), "p", "", 5); err != nil || g != (lease.Grant{}) {
		t.Errorf("got %+v, %v", g, err)
	}
}

func TestFleetRefusesBadInput(t *testing.T) {
	t.Parallel()
	f := dial(t, nowhere(t)).Fleet() // whoever asks there fails otherwise
	for _, units := range []int64{0, -1, math.MinInt64, throttlekit.MaxSafe + 1, math.MaxInt64} {
		if _, err := f.Reserve(t.Context(), "p", "", units); !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), "wants") {
			t.Errorf("wants %d: got %v", units, err)
		}
		if _, err := f.Leased("p", "", units); !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), "batch") {
			t.Errorf("batch %d: got %v", units, err)
		}
	}
	if _, err := f.Reserve(t.Context(), "p", "\xff", 1); !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), "domain") {
		t.Errorf("got %v", err)
	}
	if _, err := f.Leased("p", "\xff", 1); !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), "domain") {
		t.Errorf("got %v", err)
	}
	if _, err := f.Leased("p", "", 1, WithLowWater(-1)); !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), "lowWater") {
		t.Errorf("got %v", err)
	}
	for _, secret := range []string{"", " ", "s3cret\n", " s3cret", "s3crét"} {
		_, err := Dial("127.0.0.1:1", WithFleetSecret(secret))
		if !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), "fleetSecret must be printable") || strings.Contains(err.Error(), "s3cr") {
			t.Errorf("%q: got %v", secret, err)
		}
	}
}

// Errors of the service reach every check that waits for it, and none is covered that the mode is not for.
func TestLeasedErrors(t *testing.T) {
	t.Parallel()
	for code, want := range map[codes.Code]error{
		codes.Unauthenticated: ErrUnauthenticated, codes.NotFound: throttlekit.ErrPolicyNotFound,
		codes.Unimplemented: throttlekit.ErrUnsupported, codes.InvalidArgument: throttlekit.ErrInvalid,
	} {
		c := dial(t, serveFleet(t, func(context.Context, *throttlekitv1.ReserveRequest) (*throttlekitv1.Lease, error) {
			return nil, status.Error(code, "no")
		}), WithUnavailable(FailOpen))
		l, err := c.Fleet().Leased("p", "", 5)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := l.Check(t.Context(), ""); !errors.Is(err, want) || d.Allowed || c.Degraded() != 0 {
			t.Errorf("%v: got %+v, %v, want %v", code, d, err, want)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	c := dial(t, nowhere(t))
	l, err := c.Fleet().Leased("p", "", 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Check(t.Context(), ""); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}
