package client

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// retries is a service config that would have grpc-go send everything again.
const retries = `{"methodConfig": [{"name": [{}], "retryPolicy": {
	"maxAttempts": 5, "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1,
	"retryableStatusCodes": ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"]}}]}`

// However a debit fails, and whatever a service config says, the service sees it once.
func TestDebitIsSentOnce(t *testing.T) {
	t.Parallel()
	policy := grpc.WithDefaultServiceConfig(retries)
	plaintext := grpc.WithTransportCredentials(insecure.NewCredentials())
	clients := map[string]func(t *testing.T, addr string) *Client{
		"own": func(t *testing.T, addr string) *Client { t.Helper(); return dial(t, addr) },
		"own, with a retry policy": func(t *testing.T, addr string) *Client {
			t.Helper()
			return dial(t, addr, WithDialOptions(policy))
		},
		"borrowed, with a retry policy": func(t *testing.T, addr string) *Client {
			t.Helper()
			conn, err := grpc.NewClient(addr, plaintext, policy)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			return dial(t, "", WithConn(conn))
		},
	}
	for name, newClient := range clients {
		for _, code := range []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.Unknown} {
			t.Run(name+", "+code.String(), func(t *testing.T) {
				t.Parallel()
				var seen atomic.Int64
				c := newClient(t, serve(t, &fake{debit: func(context.Context, *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error) {
					seen.Add(1)
					return nil, status.Error(code, "it may have been booked")
				}}))
				if _, err := c.Debit(t.Context(), "p", "k", 1); status.Code(err) != code {
					t.Errorf("got %v, want %v", err, code)
				}
				if seen.Load() != 1 {
					t.Errorf("the service saw %d debits, want 1", seen.Load())
				}
			})
		}
		t.Run(name+", cut off", func(t *testing.T) {
			t.Parallel()
			var seen atomic.Int64
			f := &fake{}
			l := &cutter{Listener: listen(t)}
			f.debit = func(ctx context.Context, _ *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error) {
				seen.Add(1)
				_ = (*l.latest.Load()).Close()
				<-ctx.Done()
				return nil, status.FromContextError(ctx.Err()).Err()
			}
			serveOn(t, l, f)
			c := newClient(t, l.Addr().String())
			if _, err := c.Debit(t.Context(), "p", "k", 1); !errors.Is(err, ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
			if seen.Load() != 1 {
				t.Errorf("the service saw %d debits, want 1", seen.Load())
			}
		})
	}
}

// The retry policy of these tests would retry.
func TestRetryPolicyOfTheseTests(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	addr := serve(t, &fake{debit: func(context.Context, *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error) {
		seen.Add(1)
		return nil, status.Error(codes.Unavailable, "try again")
	}})
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := throttlekitv1.NewRateLimiterClient(conn).Debit(t.Context(), &throttlekitv1.DebitRequest{}); err == nil || seen.Load() != 5 {
		t.Errorf("got %v after %d debits, want 5", err, seen.Load())
	}
}

// A debit that gets no answer ends with the client's timeout, and the mode answers if there is one.
func TestDebitWithoutAnswer(t *testing.T) {
	t.Parallel()
	addr := serve(t, &fake{debit: func(ctx context.Context, _ *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error) {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}})
	for mode, want := range map[Unavailable]error{ReturnError: ErrUnavailable, FailOpen: nil, FailClosed: nil} {
		t.Run(strconv.Itoa(int(mode)), func(t *testing.T) {
			t.Parallel()
			c := dial(t, addr, WithTimeout(50*time.Millisecond), WithUnavailable(mode))
			if d, err := c.Debit(t.Context(), "p", "k", 1); !errors.Is(err, want) || d.Allowed != (mode == FailOpen) {
				t.Errorf("got %+v, %v, want %v", d, err, want)
			}
			late, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := c.Debit(late, "p", "k", 1); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want DeadlineExceeded", err)
			}
		})
	}
}

// cutter is a listener that knows its latest connection.
type cutter struct {
	net.Listener

	latest atomic.Pointer[net.Conn]
}

func (c *cutter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.latest.Store(&conn)
	}
	return conn, err
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return l
}
