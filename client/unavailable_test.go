package client

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

func TestUnavailableService(t *testing.T) {
	t.Parallel()
	hanging, _ := hangs()
	services := map[string]string{
		"nobody there": nowhere(t),
		"hangs":        serve(t, hanging),
		"leaves":       serve(t, fails(status.Error(codes.Unavailable, "shutting down"))),
	}
	for name, addr := range services {
		for mode, want := range map[Unavailable]throttlekit.Decision{ReturnError: {}, FailOpen: {Allowed: true}, FailClosed: {}} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var mu sync.Mutex
				var told []error
				c := dial(t, addr, WithUnavailable(mode), WithTimeout(100*time.Millisecond), WithDegraded(func(err error) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, err)
				}))
				d, err := c.Check(t.Context(), "p", "k")
				if mode == ReturnError {
					if !errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || c.Degraded() != 0 || len(told) != 0 {
						t.Errorf("got %v, degraded %d", err, c.Degraded())
					}
					return
				}
				if d != want || err != nil {
					t.Errorf("mode %d: got %+v %v, want %+v", mode, d, err, want)
				}
				if c.Degraded() != 1 || len(told) != 1 || !errors.Is(told[0], ErrUnavailable) {
					t.Errorf("mode %d: degraded %d, told %v", mode, c.Degraded(), told)
				}
				if name == "hangs" {
					return // only checks hang there
				}
				many, err := c.CheckMany(t.Context(), "p", []string{"a", "b"}, 1)
				if err != nil || len(many) != 2 || many[0] != want || many[1] != want || c.Degraded() != 2 {
					t.Errorf("mode %d: many: got %+v %v, degraded %d", mode, many, err, c.Degraded())
				}
				if d, err := c.Debit(t.Context(), "p", "k", 1); d != want || err != nil || c.Degraded() != 3 {
					t.Errorf("mode %d: debit: got %+v %v, want %+v", mode, d, err, want)
				}
				if _, err := c.Peek(t.Context(), "p", "k"); !errors.Is(err, ErrUnavailable) {
					t.Errorf("mode %d: peek: got %v, want ErrUnavailable", mode, err)
				}
				if _, err := c.Forecast(t.Context(), "p", "k", 1); !errors.Is(err, ErrUnavailable) || c.Degraded() != 3 {
					t.Errorf("mode %d: forecast: got %v, want ErrUnavailable", mode, err)
				}
			})
		}
	}
}

// What the caller did is reported as such and never covered by a mode.
func TestCallersOwnEnd(t *testing.T) {
	t.Parallel()
	f, entered := hangs()
	for where, addr := range map[string]string{"hangs": serve(t, f), "nobody there": nowhere(t)} {
		for _, mode := range []Unavailable{ReturnError, FailOpen, FailClosed} {
			c := dial(t, addr, WithUnavailable(mode), WithTimeout(time.Minute))
			gone, cancel := context.WithCancel(t.Context())
			if where == "hangs" {
				go func() { <-entered; cancel() }()
			} else {
				cancel()
			}
			if _, err := c.Check(gone, "p", "k"); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) || status.Code(err) == codes.OK {
				t.Errorf("%s: cancelled: got %v, want Canceled", where, err)
			}
			cancel()
			if where == "hangs" {
				late, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				if _, err := c.Check(late, "p", "k"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnavailable) {
					t.Errorf("%s: late: got %v, want DeadlineExceeded", where, err)
				}
				cancel()
			}
			if c.Degraded() != 0 {
				t.Errorf("%s: %d calls degraded", where, c.Degraded())
			}
		}
	}
}

// A refusal is an answer of the service, so no mode covers it either.
func TestModesDoNotCoverAnswers(t *testing.T) {
	t.Parallel()
	for _, answer := range []error{
		status.Error(codes.InvalidArgument, ""), status.Error(codes.NotFound, ""), status.Error(codes.Unimplemented, ""),
		status.Error(codes.Internal, ""), status.Error(codes.Unauthenticated, ""),
		detailed(codes.Unavailable, "throttlekit.v1", "STORE_UNAVAILABLE"),
	} {
		c := dial(t, serve(t, fails(answer)), WithUnavailable(FailOpen))
		if _, err := c.Check(t.Context(), "p", "k"); status.Code(err) != status.Code(answer) || c.Degraded() != 0 {
			t.Errorf("got %v, want %v", err, answer)
		}
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	left := make(chan time.Duration, 1)
	addr := serve(t, &fake{check: func(ctx context.Context, _ *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
		deadline, ok := ctx.Deadline()
		if !ok {
			left <- -1
		} else {
			left <- time.Until(deadline)
		}
		return &throttlekitv1.CheckResponse{Decision: &throttlekitv1.Decision{}}, nil
	}})
	long, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for _, test := range []struct {
		name     string
		ctx      context.Context
		opts     []Option
		from, to time.Duration
	}{
		{"the client's", t.Context(), []Option{WithTimeout(time.Minute)}, 30 * time.Second, time.Minute},
		{"by default", t.Context(), nil, 0, time.Second},
		{"the caller's", long, []Option{WithTimeout(time.Minute)}, 59 * time.Minute, time.Hour},
		{"none", context.WithoutCancel(t.Context()), []Option{WithTimeout(0)}, -1, -1},
	} {
		c, err := Dial(addr, test.opts...)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Check(test.ctx, "p", "k")
		_ = c.Close()
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if got := <-left; got < test.from || got > test.to {
			t.Errorf("%s: %v left, want %v to %v", test.name, got, test.from, test.to)
		}
	}
}

// A client that found nobody finds the service soon after it is there.
func TestServiceComesBack(t *testing.T) {
	t.Parallel()
	target := nowhere(t)
	c := dial(t, target)
	if _, err := c.Check(t.Context(), "p", "k"); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	serveAt(t, "unix", strings.TrimPrefix(target, "unix://"), fails(status.Error(codes.NotFound, "")))
	began := time.Now()
	for {
		_, err := c.Check(t.Context(), "p", "k")
		if errors.Is(err, throttlekit.ErrPolicyNotFound) {
			return
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("still %v", err)
		}
	}
}
