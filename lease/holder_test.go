package lease_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
)

// lender is a source that a test plays.
type lender struct {
	asked    atomic.Int64
	lend     func(ctx context.Context, least, wants int64) (lease.Grant, error)
	returned atomic.Int64
}

func (l *lender) Lease(ctx context.Context, _ string, least, wants int64) (lease.Grant, error) {
	l.asked.Add(1)
	return l.lend(ctx, least, wants)
}

func (l *lender) Return(_ context.Context, _ string, units, _ int64) error {
	l.returned.Add(units)
	return nil
}

func freely(_ context.Context, _, wants int64) (lease.Grant, error) {
	return lease.Grant{Units: wants, ResetAtMillis: 1000, ResetsIn: time.Second}, nil
}

func newHolder(t *testing.T, config lease.HolderConfig) *lease.Holder {
	t.Helper()
	if config.Limit == 0 {
		config.Limit = 100
	}
	h, err := lease.NewHolder(config)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestMissesShareOneLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		source := &lender{lend: func(ctx context.Context, least, wants int64) (lease.Grant, error) {
			<-gate
			return freely(ctx, least, wants)
		}}
		h := newHolder(t, lease.HolderConfig{Source: source, Batch: 10})
		var work sync.WaitGroup
		for range 3 {
			work.Go(func() {
				if d, err := h.Check(t.Context()); err != nil || !d.Allowed {
					t.Errorf("%+v, %v", d, err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		work.Wait()
		if asked, held := source.asked.Load(), h.Held(); asked != 1 || held != 7 {
			t.Errorf("%d leases and %v units left, want 1 and 7", asked, held)
		}
		if err := h.Close(t.Context()); err != nil || source.returned.Load() != 7 {
			t.Errorf("%d units given back, %v", source.returned.Load(), err)
		}
	})
}

// A grant is credited once, however many wait for it.
func TestGrantIsCreditedOnce(t *testing.T) {
	t.Parallel()
	var lent atomic.Int64
	source := &lender{lend: func(_ context.Context, least, wants int64) (lease.Grant, error) {
		for {
			left := 1000 - lent.Load()
			units := min(wants, left)
			if units < least {
				return lease.Grant{Denial: throttlekit.Decision{RetryAfterMillis: 5}}, nil
			}
			if lent.CompareAndSwap(1000-left, 1000-left+units) {
				return lease.Grant{Units: units, ResetsIn: time.Second}, nil
			}
		}
	}}
	h := newHolder(t, lease.HolderConfig{Source: source, Batch: 16, LowWater: 3})
	var admitted atomic.Int64
	var work sync.WaitGroup
	for range 16 {
		work.Go(func() {
			for range 200 {
				d, err := h.Check(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if d.Allowed {
					admitted.Add(1)
				}
			}
		})
	}
	work.Wait()
	if got := admitted.Load(); got != 1000 {
		t.Errorf("admitted %d of 1000", got)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWhoLeavesDoesNotStopTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		source := &lender{lend: func(ctx context.Context, least, wants int64) (lease.Grant, error) {
			<-gate
			if ctx.Err() != nil {
				t.Error("the lease ended with the context of who caused it")
			}
			return freely(ctx, least, wants)
		}}
		h := newHolder(t, lease.HolderConfig{Source: source, Batch: 10})
		ctx, cancel := context.WithCancel(t.Context())
		left, stayed := make(chan error, 1), make(chan throttlekit.Decision, 1)
		go func() {
			_, err := h.Check(ctx)
			left <- err
		}()
		synctest.Wait()
		go func() {
			d, _ := h.Check(t.Context())
			stayed <- d
		}()
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		close(gate)
		if d := <-stayed; !d.Allowed || d.Remaining != 9 {
			t.Errorf("who stayed got %+v, want 9 left: who left has not spent", d)
		}
		if source.asked.Load() != 1 {
			t.Errorf("%d leases", source.asked.Load())
		}
	})
}

func TestFailuresReachEverybodyAndAreNotKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken, gate := errors.New("broken"), make(chan struct{})
		source := &lender{}
		source.lend = func(ctx context.Context, least, wants int64) (lease.Grant, error) {
			if source.asked.Load() == 1 {
				<-gate
				return lease.Grant{}, broken
			}
			return freely(ctx, least, wants)
		}
		h := newHolder(t, lease.HolderConfig{Source: source, Batch: 10})
		var failed atomic.Int64
		var work sync.WaitGroup
		for range 5 {
			work.Go(func() {
				if _, err := h.Check(t.Context()); errors.Is(err, broken) {
					failed.Add(1)
				}
			})
		}
		synctest.Wait()
		close(gate)
		work.Wait()
		if failed.Load() != 5 {
			t.Errorf("%d of 5 saw the failure", failed.Load())
		}
		if d, err := h.Check(t.Context()); err != nil || !d.Allowed {
			t.Errorf("afterwards: %+v, %v", d, err)
		}
	})
}

// A denial of a dear request says nothing about a cheap one.
func TestCheapRequestsAreNotDeniedForDearOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		source := &lender{}
		source.lend = func(_ context.Context, least, wants int64) (lease.Grant, error) {
			if source.asked.Load() == 1 {
				<-gate
			}
			if least > 3 {
				return lease.Grant{Denial: throttlekit.Decision{Limit: 100, Remaining: 3, RetryAfterMillis: 9}}, nil
			}
			return lease.Grant{Units: min(3, wants), ResetsIn: time.Second}, nil
		}
		h := newHolder(t, lease.HolderConfig{Source: source, Batch: 10})
		dear, cheap := make(chan throttlekit.Decision, 1), make(chan throttlekit.Decision, 1)
		go func() {
			d, _ := h.CheckN(t.Context(), 5)
			dear <- d
		}()
		synctest.Wait()
		go func() {
			d, _ := h.CheckN(t.Context(), 1)
			cheap <- d
		}()
		synctest.Wait()
		close(gate)
		if d := <-dear; d.Allowed || d.Remaining != 3 {
			t.Errorf("the dear one: %+v", d)
		}
		if d := <-cheap; !d.Allowed {
			t.Errorf("the cheap one: %+v", d)
		}
	})
}

func TestRefillsAheadOfNeed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &lender{lend: freely}
		h := newHolder(t, lease.HolderConfig{Source: source, Batch: 10, LowWater: 4})
		for range 6 {
			if _, err := h.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if asked, held := source.asked.Load(), h.Held(); asked != 2 || held != 14 {
			t.Errorf("%d leases and %v units, want 2 and 14", asked, held)
		}
		source.lend = func(context.Context, int64, int64) (lease.Grant, error) {
			return lease.Grant{Denial: throttlekit.Decision{RetryAfterMillis: 1000}}, nil
		}
		for range 14 { // a refusal ahead of need hurts nobody, and is not sought again at once
			if d, err := h.Check(t.Context()); err != nil || !d.Allowed {
				t.Fatalf("%+v, %v", d, err)
			}
			synctest.Wait()
		}
		if asked := source.asked.Load(); asked != 3 {
			t.Errorf("%d leases, want one refused refill", asked-2)
		}
		if d, err := h.Check(t.Context()); err != nil || d.Allowed {
			t.Errorf("with nothing left: %+v, %v", d, err)
		}
	})
}

// A refill that arrives after its window is dropped whole; so says the specification's §1.
func TestLateRefillIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		gate := make(chan struct{})
		source := &lender{}
		source.lend = func(_ context.Context, _, wants int64) (lease.Grant, error) {
			n := source.asked.Load()
			if n == 2 {
				<-gate
			}
			return lease.Grant{Units: wants, ResetAtMillis: n * 1000, ResetsIn: time.Second, Lasts: time.Second}, nil
		}
		h := newHolder(t, lease.HolderConfig{
			Source: source, Batch: 10, LowWater: 9,
			Elapsed: func() time.Duration { return time.Since(start) },
		})
		if _, err := h.Check(t.Context()); err != nil { // starts the refill
			t.Fatal(err)
		}
		if _, err := h.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		wait(t, 1100*time.Millisecond)
		close(gate)
		synctest.Wait()
		if held := h.Held(); held != 0 {
			t.Errorf("%v units of a window that is over", held)
		}
		if d, err := h.Check(t.Context()); err != nil || d.Remaining != 9 || d.ResetAtMillis != 3000 {
			t.Errorf("in the next window: %+v, %v", d, err)
		}
		synctest.Wait()
	})
}

// wait lets the clock of a bubble advance.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

func TestCreditsEndBeforeTheirWindowCan(t *testing.T) {
	t.Parallel()
	var now time.Duration
	source := &lender{lend: func(_ context.Context, _, wants int64) (lease.Grant, error) {
		now += 300 * time.Millisecond // the round trip
		return lease.Grant{Units: wants, ResetAtMillis: 1000, ResetsIn: time.Second, Lasts: time.Second}, nil
	}}
	h := newHolder(t, lease.HolderConfig{Source: source, Batch: 10, Elapsed: func() time.Duration { return now }})
	if _, err := h.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A second since the request was sent, less the drift of 1000 ppm, less the
	// millisecond of the issuer's clock.
	now = 997 * time.Millisecond
	if held := h.Held(); held != 9 {
		t.Errorf("%v units held shortly before the end", held)
	}
	now = 998 * time.Millisecond
	if held := h.Held(); held != 0 {
		t.Errorf("%v units held at the end", held)
	}
}

func TestHolderAfterClose(t *testing.T) {
	t.Parallel()
	h := newHolder(t, lease.HolderConfig{Source: &lender{lend: freely}, Batch: 10})
	for range 2 {
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Check(t.Context()); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestHolderRefusesBadInput(t *testing.T) {
	t.Parallel()
	source := &lender{lend: freely}
	for field, config := range map[string]lease.HolderConfig{
		"source":   {Limit: 1, Batch: 1},
		"limit":    {Source: source, Limit: -1, Batch: 1},
		"batch":    {Source: source, Limit: 1},
		"lowWater": {Source: source, Limit: 1, Batch: 1, LowWater: -1},
	} {
		if _, err := lease.NewHolder(config); !errors.Is(err, throttlekit.ErrInvalid) || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	h := newHolder(t, lease.HolderConfig{Source: source, Batch: 10})
	for _, cost := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		if _, err := h.CheckN(t.Context(), cost); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("cost %v: %v", cost, err)
		}
	}
	if source.asked.Load() != 0 {
		t.Error("a wrong cost asked the source")
	}
}

func BenchmarkHolderCheck(b *testing.B) {
	h, err := lease.NewHolder(lease.HolderConfig{Source: &lender{lend: freely}, Limit: 100, Batch: 1000})
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := h.Check(ctx); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// Nobody who waits is overtaken: clients that ask again at once are served in turn, and a
// dear request among cheap ones gets through.
func TestWaitersAreServedInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &lender{lend: func(_ context.Context, _, wants int64) (lease.Grant, error) {
			wait(t, time.Millisecond)
			return lease.Grant{Units: min(wants, 5), ResetsIn: time.Hour}, nil
		}}
		h := newHolder(t, lease.HolderConfig{Source: source, Batch: 5})
		const clients = 50
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var served [clients]atomic.Int64
		var work sync.WaitGroup
		for i := range clients {
			work.Go(func() {
				for {
					if _, err := h.Check(ctx); err != nil {
						return
					}
					served[i].Add(1)
				}
			})
		}
		if d, err := h.CheckN(ctx, 4); err != nil || !d.Allowed {
			t.Errorf("the dear one: %+v, %v", d, err)
		}
		work.Wait()
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
		least, most := served[0].Load(), served[0].Load()
		for i := range served {
			least, most = min(least, served[i].Load()), max(most, served[i].Load())
		}
		if least == 0 || most > least+3 {
			t.Errorf("one client was served %d times, another %d times", least, most)
		}
	})
}

func TestSilentSourceIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &lender{}
		source.lend = func(ctx context.Context, least, wants int64) (lease.Grant, error) {
			if source.asked.Load() == 1 {
				<-ctx.Done()
				return lease.Grant{}, ctx.Err()
			}
			return freely(ctx, least, wants)
		}
		h := newHolder(t, lease.HolderConfig{Source: source, Batch: 5, Timeout: time.Second})
		if _, err := h.Check(t.Context()); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("while it is silent: %v", err)
		}
		if d, err := h.Check(t.Context()); err != nil || !d.Allowed {
			t.Errorf("afterwards: %+v, %v", d, err)
		}
	})
}

func TestCloseWaitsNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		source := &lender{lend: func(ctx context.Context, least, wants int64) (lease.Grant, error) {
			<-gate
			return freely(ctx, least, wants)
		}}
		h := newHolder(t, lease.HolderConfig{Source: source, Batch: 5})
		answers := make(chan error, 1)
		go func() {
			_, err := h.Check(t.Context())
			answers <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := h.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		close(gate)
		if err := <-answers; err != nil {
			t.Errorf("who was waiting got %v", err)
		}
	})
}
