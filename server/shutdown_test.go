package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/service"
)

// soon is far less than any timeout of the server, and ample for what should happen at once.
const soon = 4 * time.Second

// Under load from 32 callers a shutdown loses no answer: each request is answered or fails as unavailable, and what the
// service charged is at least every answer, and at most every answer and every failure.
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	const callers, warmUp = 32, 2000
	counted := &counting{named: "counted"}
	s, stop := serve(t, policies(t, counted), local())
	doors := stubs(t, s)
	web := httpClient(t)
	url := "http://" + s.HTTPAddr().String() + throttlekitv1.RateLimiter_Check_FullMethodName

	var answered, failed atomic.Int64
	warm := make(chan struct{})
	var callersDone sync.WaitGroup
	for i := range callers {
		callersDone.Go(func() {
			for {
				var err error
				if i%2 == 0 {
					_, err = doors["grpc"].Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "counted"})
					if err != nil && status.Code(err) != codes.Unavailable {
						t.Errorf("grpc: got %v, want UNAVAILABLE", err)
					}
				} else {
					err = post(t.Context(), web, url)
				}
				if err != nil {
					failed.Add(1)
					return
				}
				if answered.Add(1) == warmUp {
					close(warm)
				}
			}
		})
	}
	<-warm
	began := time.Now()
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if took := time.Since(began); took > soon {
		t.Errorf("the drain took %v", took)
	}
	callersDone.Wait()

	charged := counted.charged.Load()
	t.Logf("%d answered, %d failed, %d charged", answered.Load(), failed.Load(), charged)
	if charged < answered.Load() || charged > answered.Load()+failed.Load() {
		t.Errorf("%d charged for %d answers and %d failures", charged, answered.Load(), failed.Load())
	}
}

// post is a check over HTTP. A status other than 200 is as wrong as half an answer; a connection that ended is an error.
func post(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"policy":"counted"}`))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || !strings.Contains(string(body), `"allowed":`)) {
		panic(fmt.Sprintf("%s: %s", res.Status, body))
	}
	return err
}

// counting charges without a limit and counts.
type counting struct {
	named

	charged atomic.Int64
}

func (c *counting) Check(context.Context, string, float64) (throttlekit.Decision, error) {
	c.charged.Add(1)
	return throttlekit.Decision{Allowed: true}, nil
}

// gated holds every check until it is let go.
type gated struct {
	named

	entered chan struct{}
	release chan struct{}
}

func newGated() *gated {
	return &gated{named: "gated", entered: make(chan struct{}, 64), release: make(chan struct{})}
}

func (g *gated) Check(context.Context, string, float64) (throttlekit.Decision, error) {
	g.entered <- struct{}{}
	<-g.release
	return throttlekit.Decision{Allowed: true, Limit: 7}, nil
}

func TestShutdownWaitsForRunningRequests(t *testing.T) {
	t.Parallel()
	for _, door := range []string{"grpc", "http json"} {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			policy := newGated()
			s, stop := serve(t, policies(t, policy), local())
			client := stubs(t, s)[door]
			answer := make(chan error, 1)
			go func() {
				res, err := client.Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "gated"})
				if err == nil && res.GetDecision().GetLimit() != 7 {
					err = fmt.Errorf("got %v", res)
				}
				answer <- err
			}()
			<-policy.entered
			stopped := make(chan error, 1)
			go func() { stopped <- stop() }()
			<-s.health.draining
			awaitRefusal(t, s.GRPCAddr())
			awaitRefusal(t, s.HTTPAddr())
			select {
			case err := <-stopped:
				t.Fatalf("Serve returned (%v) with a request running", err)
			default:
			}
			close(policy.release)
			if err := <-answer; err != nil {
				t.Errorf("the running request: %v", err)
			}
			if err := <-stopped; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// awaitRefusal returns once nobody listens at addr.
func awaitRefusal(t *testing.T, addr net.Addr) {
	t.Helper()
	for {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr.String())
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

func TestShutdownCutsOffAtTheDeadline(t *testing.T) {
	t.Parallel()
	for _, door := range []string{"grpc", "http json"} {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			policy := newGated()
			t.Cleanup(func() { close(policy.release) })
			cfg := local()
			cfg.DrainTimeout = 50 * time.Millisecond
			s, stop := serve(t, policies(t, policy), cfg)
			client := stubs(t, s)[door]
			answer := make(chan error, 1)
			go func() {
				_, err := client.Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "gated"})
				answer <- err
			}()
			<-policy.entered
			began := time.Now()
			if err := stop(); !errors.Is(err, ErrDrainTimeout) {
				t.Errorf("Serve: got %v, want ErrDrainTimeout", err)
			}
			if took := time.Since(began); took > soon {
				t.Errorf("the drain took %v", took)
			}
			if err := <-answer; err == nil {
				t.Error("the request was answered")
			}
		})
	}
}

func TestShutdownIsNotHeldByWatchesOrSilence(t *testing.T) {
	t.Parallel()
	s, stop := serve(t, policies(t), local())
	health := healthpb.NewHealthClient(dial(t, s))
	var watches []healthpb.Health_WatchClient
	for _, name := range []string{"", "throttlekit.v1.RateLimiter", "nobody"} {
		watch, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		if err != nil {
			t.Fatal(err)
		}
		want := healthpb.HealthCheckResponse_SERVING
		if name == "nobody" {
			want = healthpb.HealthCheckResponse_SERVICE_UNKNOWN
		}
		if first, err := watch.Recv(); err != nil || first.GetStatus() != want {
			t.Fatalf("%q: got %v %v, want %v", name, first, err, want)
		}
		watches = append(watches, watch)
	}
	// Connections that nothing came over, as a load balancer or a browser makes them in advance.
	for _, addr := range []net.Addr{s.GRPCAddr(), s.HTTPAddr()} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}

	began := time.Now()
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if took := time.Since(began); took > soon {
		t.Errorf("the drain took %v", took)
	}
	for i, watch := range watches {
		if i < 2 {
			if last, err := watch.Recv(); err != nil || last.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
				t.Errorf("watch %d: got %v %v, want NOT_SERVING", i, last, err)
			}
		}
		if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("watch %d: got %v, want UNAVAILABLE", i, err)
		}
	}
}

// A handshake that never ends must not outlast the deadline: grpc-go's Stop alone would wait for it.
func TestShutdownIsNotHeldByHalfAHandshake(t *testing.T) {
	t.Parallel()
	cfg := local()
	cfg.DrainTimeout = 50 * time.Millisecond
	s, stop := serve(t, policies(t), cfg)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.GRPCAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("PRI * HTTP")); err != nil {
		t.Fatal(err)
	}
	if _, err := stubs(t, s)["grpc"].Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "five"}); err != nil {
		t.Fatal(err) // by now the bytes have arrived, too
	}
	began := time.Now()
	_ = stop()
	if took := time.Since(began); took > soon {
		t.Errorf("the drain took %v", took)
	}
}

func TestServeEndsWhenADoorFails(t *testing.T) {
	t.Parallel()
	s, err := New(policies(t), local())
	if err != nil {
		t.Fatal(err)
	}
	_ = s.web[0].listener.Listener.Close()
	if err := s.Serve(t.Context()); err == nil {
		t.Error("Serve returned no error")
	}
	if err := s.Serve(t.Context()); !errors.Is(err, ErrServed) {
		t.Errorf("a second Serve: got %v, want ErrServed", err)
	}
	awaitRefusal(t, s.GRPCAddr())
}

// A door and its server both close the listener, and whoever comes second must not report that.
func TestListenerClosesTwice(t *testing.T) {
	t.Parallel()
	l, err := listen("127.0.0.1:0", "--port")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	awaitRefusal(t, l.Addr())
}

func TestClose(t *testing.T) {
	t.Parallel()
	t.Run("before Serve", func(t *testing.T) {
		t.Parallel()
		s, err := New(policies(t), local())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		awaitRefusal(t, s.GRPCAddr())
		awaitRefusal(t, s.HTTPAddr())
		if err := s.Close(); err != nil {
			t.Errorf("a second time: %v", err)
		}
	})
	t.Run("during Serve", func(t *testing.T) {
		t.Parallel()
		policy := newGated()
		s, err := New(policies(t, policy), local())
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve(t.Context()) }()
		answer := make(chan error, 1)
		client := stubs(t, s)["grpc"]
		go func() {
			_, err := client.Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "gated"})
			answer <- err
		}()
		<-policy.entered
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-answer; status.Code(err) != codes.Unavailable {
			t.Errorf("the running request: got %v, want UNAVAILABLE", err)
		}
		close(policy.release)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

var _ service.Checker = (*gated)(nil)
