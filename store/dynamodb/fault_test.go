package dynamostore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	throttlekit "github.com/throttlekit/throttlekit-go"
	dynamostore "github.com/throttlekit/throttlekit-go/store/dynamodb"
	"github.com/throttlekit/throttlekit-go/store/dynamodb/dynamotest"
)

// tripper does something to requests.
type tripper func(r *http.Request) (*http.Response, error)

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// operation is what a request asks for.
func operation(r *http.Request) string {
	_, name, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	return name
}

// TestLostAnswers: the answer to a write gets lost after DynamoDB has carried it out. The
// SDK would send it again; a charge must not be.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	var writes atomic.Int64
	client, done := connect(server, func(next http.RoundTripper) http.RoundTripper {
		return tripper(func(r *http.Request) (*http.Response, error) {
			answer, err := next.RoundTrip(r)
			if err != nil || operation(r) != "PutItem" {
				return answer, err
			}
			writes.Add(1)
			answer.Body.Close()
			return nil, io.ErrUnexpectedEOF
		})
	})
	t.Cleanup(done)
	config := dynamostore.Config{Prefix: newPrefix()}
	lossy, store := newStore(t, client, config), newStore(t, newClient(t, server), config)
	r := rule(t, slow)
	for want := range int64(3) {
		if _, err := lossy.Apply(t.Context(), "k", r, 1); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("a lost answer is told as %v", err)
		}
		if got := writes.Load(); got != want+1 {
			t.Errorf("%d writes were sent for %d checks", got, want+1)
		}
		rec, now, err := store.Load(t.Context(), "k", r)
		if left := r.Peek(rec, now).Remaining; err != nil || left != 5-want-1 {
			t.Errorf("%d units are left, %v, want %d", left, err, 5-want-1)
		}
	}
}

// TestFlakyReads: reads and resets are repeated by the SDK.
func TestFlakyReads(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	client, done := connect(server, func(next http.RoundTripper) http.RoundTripper {
		return tripper(func(r *http.Request) (*http.Response, error) {
			if operation(r) != "PutItem" && n.Add(1)%2 == 1 {
				return nil, io.ErrUnexpectedEOF
			}
			return next.RoundTrip(r)
		})
	})
	t.Cleanup(done)
	store := newStore(t, client, dynamostore.Config{})
	if d, err := store.Apply(t.Context(), "k", rule(t, slow), 5); err != nil || !d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
	if err := store.Reset(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}

// TestFaults breaks a server of its own.
func TestFaults(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	victim, err := dynamotest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := victim.Stop(); err != nil {
			t.Error(err)
		}
	}()
	t.Run("Down at first", func(t *testing.T) { downAtFirst(t, victim) })
	for name, fault := range map[string]func() error{
		"Killed": func() error {
			if err := victim.Kill(); err != nil {
				return err
			}
			time.Sleep(300 * time.Millisecond) //nolint:forbidigo // the load goes on meanwhile
			return victim.Restart()
		},
		"Frozen": func() error {
			if err := victim.Freeze(); err != nil {
				return err
			}
			time.Sleep(2 * time.Second) //nolint:forbidigo // this is what is tested
			return victim.Thaw()
		},
	} {
		t.Run(name, func(t *testing.T) { underLoad(t, victim, name, fault) })
	}
}

// downAtFirst: a store is made while the server is down, fails within its deadline, and
// works once the server is up and the table is there.
func downAtFirst(t *testing.T, victim *dynamotest.Server) {
	t.Helper()
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, victim)
	config := dynamostore.Config{Table: table, Prefix: "prod"}
	store, err := dynamostore.New(client, config)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err = store.Apply(t.Context(), "k", rule(t, slow), 1)
	if text := fmt.Sprint(err); !errors.Is(err, throttlekit.ErrStoreUnavailable) ||
		!strings.Contains(text, `DynamoDB table shared, prefix "prod"`) || strings.Contains(text, "s3cret") {
		t.Errorf("%v, want table and prefix, and no secret", err)
	}
	if took := time.Since(began); took > 250*time.Millisecond+grace {
		t.Errorf("answered after %v", took)
	}
	if err := victim.Restart(); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; { // a busy machine may miss a deadline at first
		_, err := store.Apply(t.Context(), "k", rule(t, slow), 1)
		if !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Fatalf("without its table the store says %v", err)
		}
		if strings.Contains(err.Error(), "ResourceNotFound") {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal(err)
		}
	}
	if err := dynamostore.CreateTable(t.Context(), client, config); err != nil {
		t.Fatal(err)
	}
	await(t, store, rule(t, slow))
}

// await waits until the store answers again, and says how long that took.
func await(t *testing.T, store throttlekit.Store, r throttlekit.Rule) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		_, err := store.Apply(t.Context(), "await", r, 1)
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("no recovery: %v", err)
		}
	}
}

// grace is what a busy machine may add to a deadline.
const grace = 700 * time.Millisecond

// underLoad lets callers check without pause while the server breaks and recovers. Every
// caller is answered within its deadline, and no more is admitted than the limit.
func underLoad(t *testing.T, victim *dynamotest.Server, name string, fault func() error) {
	t.Helper()
	const limit, callers, deadline = 400, 8, 250 * time.Millisecond
	store, err := dynamostore.New(newClient(t, victim), dynamostore.Config{Table: table, Prefix: name, Timeout: deadline})
	if err != nil {
		t.Fatal(err)
	}
	r := rule(t, throttlekit.FixedWindow{Limit: limit, Window: 10_000 * time.Hour})
	await(t, store, r)
	var admitted, failed, slowest atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				d, err := store.Apply(context.WithoutCancel(ctx), "k", r, 1)
				took := int64(time.Since(began))
				for old := slowest.Load(); took > old; old = slowest.Load() {
					slowest.CompareAndSwap(old, took)
				}
				switch {
				case err == nil && d.Allowed:
					admitted.Add(1)
				case errors.Is(err, throttlekit.ErrStoreUnavailable):
					failed.Add(1)
				case err != nil:
					t.Error(err)
				}
			}
		})
	}
	for admitted.Load() < limit/4 {
		time.Sleep(time.Millisecond) //nolint:forbidigo // the load goes on meanwhile
	}
	if err := fault(); err != nil {
		t.Fatal(err)
	}
	recovered := await(t, store, r)
	stop()
	running.Wait()
	t.Logf("%s: recovered %v after, %d admitted, %d failed, slowest answer %v", name, recovered.Round(time.Millisecond),
		admitted.Load(), failed.Load(), time.Duration(slowest.Load()).Round(time.Millisecond))
	if failed.Load() == 0 {
		t.Error("nobody noticed")
	}
	if took := time.Duration(slowest.Load()); took > deadline+grace {
		t.Errorf("a call was answered after %v", took)
	}
	for began := time.Now(); ; {
		d, err := store.Apply(t.Context(), "k", r, 1)
		if err != nil { // a busy machine may miss a deadline
			if failed.Add(1); time.Since(began) > 30*time.Second {
				t.Fatal(err)
			}
			continue
		}
		if !d.Allowed {
			break
		}
		admitted.Add(1)
	}
	if n := admitted.Load(); n > limit || n < limit-failed.Load() {
		t.Errorf("%d were admitted in all, want at most %d and at least as many but for %d failures", n, limit, failed.Load())
	}
}
