package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// lessor is a connection to a service that grants every slot, and takes it back when its lease is over, by the clock of
// the bubble that the test runs in.
type lessor struct {
	ttl  time.Duration
	told int64 // what it says of it, in milliseconds
	// What happens before a slot is granted, on the way back of the answer, and before a heartbeat is heard, by its number
	// from 1. An error is what the caller gets. Nil for nothing.
	wait, back func()
	beat       func(ctx context.Context, n int) error
	late       time.Duration // for so long answers to heartbeats are on their way
	mute       string        // a lease of which they say nothing

	mu      sync.Mutex
	until   map[string]time.Time
	granted int
	beats   []int // how many leases each heartbeat named
	under   int   // heartbeats under way
	most    int
	ends    []string // "released" or "dropped", as they came
}

func (l *lessor) Invoke(ctx context.Context, _ string, req, res any, _ ...grpc.CallOption) error {
	switch req := req.(type) {
	case *throttlekitv1.AdmitRequest:
		run(l.wait)
		l.grant(res.(*throttlekitv1.AdmitResponse))
		run(l.back)
	case *throttlekitv1.HeartbeatRequest:
		return l.hear(ctx, req, res.(*throttlekitv1.HeartbeatResponse))
	case *throttlekitv1.ReleaseRequest:
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.until, req.GetLeaseId())
		l.ends = append(l.ends, map[bool]string{false: "released", true: "dropped"}[req.GetDropped()])
	}
	return nil
}

func (*lessor) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.ErrUnsupported
}

func run(f func()) {
	if f != nil {
		f()
	}
}

func (l *lessor) grant(res *throttlekitv1.AdmitResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until == nil {
		l.until = make(map[string]time.Time)
	}
	l.granted++
	id := strconv.Itoa(l.granted)
	l.until[id] = time.Now().Add(l.ttl)
	res.Decision, res.LeaseId, res.LeaseTtlMs = &throttlekitv1.Decision{Allowed: true}, id, l.told
}

func (l *lessor) hear(ctx context.Context, req *throttlekitv1.HeartbeatRequest, res *throttlekitv1.HeartbeatResponse) error {
	l.mu.Lock()
	l.beats = append(l.beats, len(req.GetLeaseIds()))
	n := len(l.beats)
	l.under++
	l.most = max(l.most, l.under)
	l.mu.Unlock()
	var err error
	if l.beat != nil {
		err = l.beat(ctx, n)
	}
	if err == nil {
		l.renew(req, res)
		err = slow(l.late)(ctx, n)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.under--
	return err
}

func (l *lessor) renew(req *throttlekitv1.HeartbeatRequest, res *throttlekitv1.HeartbeatResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range req.GetLeaseIds() {
		if id == l.mute {
			continue
		}
		if until, ok := l.until[id]; ok && time.Now().Before(until) {
			l.until[id] = time.Now().Add(l.ttl)
			res.LiveIds = append(res.LiveIds, id)
		} else {
			res.ReclaimedIds = append(res.ReclaimedIds, id)
		}
	}
}

// deadline is when the service takes a slot back.
func (l *lessor) deadline(a *Admission) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until[a.lease]
}

// calls are how many leases each heartbeat named, and how many of them were under way at most.
func (l *lessor) calls() (sizes []int, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.beats), l.most
}

// last is how the last slot was given back, or empty, and forgets it.
func (l *lessor) last() (end string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.ends); n > 0 {
		end = l.ends[n-1]
	}
	l.ends = nil
	return end
}

// slots is a client of a lessor. It is for use in a bubble.
func slots(t *testing.T, l *lessor, opts ...Option) *Client {
	t.Helper()
	return dial(t, "", append([]Option{WithConn(l), WithLeaseTTL(l.ttl)}, opts...)...)
}

func kept(t *testing.T, c *Client) *Admission {
	t.Helper()
	a, err := c.Admit(t.Context(), "p", "k", WithHeartbeat())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// lost says whether somebody was told that the slot is gone.
func lost(a *Admission) bool {
	select {
	case <-a.Reclaimed():
		return true
	default:
		return false
	}
}

func after(d time.Duration) func() { return func() { <-time.After(d) } }

// hang is a call that gets lost: nobody answers.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// slow is a call that takes some time.
func slow(d time.Duration) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const term = 2 * time.Second

// What holds a slot keeps it through whatever heartbeats of which enough are answered meet.
func TestHeartbeatsSurvive(t *testing.T) {
	t.Parallel()
	tests := map[string]func(ctx context.Context, n int) error{
		"nothing": func(context.Context, int) error { return nil },
		"one that is lost": func(ctx context.Context, n int) error {
			if n == 2 {
				return hang(ctx)
			}
			return nil
		},
		"every other one lost": func(ctx context.Context, n int) error {
			if n%2 == 1 {
				return hang(ctx)
			}
			return nil
		},
		"every other one refused": func(_ context.Context, n int) error {
			if n%2 == 1 {
				return status.Error(codes.Unavailable, "try again")
			}
			return nil
		},
		"all of them slow": slow(term * 6 / 10),
		"one so slow that the next one is answered before it, and then one lost": func(ctx context.Context, n int) error {
			switch n % 6 {
			case 3:
				return slow(term*6/10)(ctx, n)
			case 5:
				return hang(ctx)
			}
			return nil
		},
	}
	for name, beat := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &lessor{ttl: term, beat: beat}
				a := kept(t, slots(t, l))
				for range 100 {
					<-time.After(term / 5)
					if lost(a) || !a.Held() || time.Now().After(l.deadline(a)) {
						t.Fatalf("lost %v, held %v, %v before its deadline", lost(a), a.Held(), time.Until(l.deadline(a)))
					}
				}
				if _, most := l.calls(); most > 2 {
					t.Errorf("%d calls at once", most)
				}
			})
		})
	}
}

// Without answers each slot is given up by itself: before the service takes it back, and not long before.
func TestGivenUpInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var cut atomic.Bool
		l := &lessor{ttl: term, late: term / 3, beat: func(ctx context.Context, _ int) error {
			if cut.Load() {
				return hang(ctx)
			}
			return nil
		}}
		c := slots(t, l)
		var all []*Admission
		for range 40 {
			<-time.After(term / 23)
			all = append(all, kept(t, c))
		}
		cut.Store(true)
		for range 17 { // these are granted, and then never heard of again
			<-time.After(term / 41)
			all = append(all, kept(t, c))
		}
		var group sync.WaitGroup
		for i, a := range all {
			group.Go(func() {
				<-a.Reclaimed()
				if early := time.Until(l.deadline(a)); a.Held() || early <= 0 || early > term/20 {
					t.Errorf("lease %d was given up %v before its deadline", i, early)
				}
			})
		}
		group.Wait()
		c.beats.mu.Lock()
		defer c.beats.mu.Unlock()
		if c.beats.armed || len(c.beats.held) > 0 {
			t.Error("something goes on without leases")
		}
	})
}

// One lease that is nearly over does not hurry the heartbeats of others.
func TestOneLeaseIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &lessor{ttl: term, mute: "1", beat: slow(term * 6 / 10)}
		c := slots(t, l)
		forgotten, other := kept(t, c), kept(t, c)
		<-time.After(10 * term)
		if !lost(forgotten) || lost(other) || !other.Held() {
			t.Errorf("lost: %v the one, %v the other", lost(forgotten), lost(other))
		}
	})
}

// A slot that came after a long wait is as good as another, if the service still has it.
func TestLongWaitForASlot(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		wait, back time.Duration
		lost       bool
	}{
		{"in the queue", 5 * term, 0, false},
		{"longer than the term", term + 1, 0, false},
		{"a little less than the term", term - 1, 0, false},
		{"so long that it is hardly a wait", term/4 + 1, 0, false},
		{"for an answer in time", 0, term * 9 / 10, false},
		{"in the queue, and for the answer", term, term * 9 / 10, false},
		{"for an answer that came too late", 0, term, true},
		{"for nothing", 3 * term, 2 * term, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &lessor{ttl: term, wait: after(tt.wait), back: after(tt.back)}
				a := kept(t, slots(t, l))
				synctest.Wait()
				if sizes, _ := l.calls(); len(sizes) != 1 {
					t.Errorf("%d heartbeats at once", len(sizes))
				}
				if lost(a) != tt.lost {
					t.Fatalf("lost %v", lost(a))
				}
				<-time.After(5 * term)
				if lost(a) != tt.lost || a.Held() == tt.lost {
					t.Errorf("lost %v, held %v", lost(a), a.Held())
				}
			})
		})
	}
}

// A slot that was waited for is given up in time, too, if the answer was not long on its way.
func TestLongWaitAndThenSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &lessor{ttl: term, wait: after(3 * term), back: after(term / 4), beat: func(ctx context.Context, _ int) error { return hang(ctx) }}
		a := kept(t, slots(t, l))
		<-a.Reclaimed()
		if early := time.Until(l.deadline(a)); early <= 0 || early > term/20 {
			t.Errorf("given up %v before its deadline", early)
		}
	})
}

// Many slots that were waited for do not make a call each.
func TestManyWaited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		waits := 0
		l := &lessor{ttl: term, wait: func() {
			mu.Lock()
			waits++
			d := term + time.Duration(waits)*term/1000 // one after the other, within a term
			mu.Unlock()
			<-time.After(d)
		}}
		c := slots(t, l)
		var group sync.WaitGroup
		all := make([]*Admission, 1000)
		for i := range all {
			group.Go(func() { all[i] = kept(t, c) })
		}
		group.Wait()
		<-time.After(term)
		sizes, _ := l.calls()
		if len(sizes) > 2*turnsPerTTL {
			t.Errorf("%d calls", len(sizes))
		}
		named := 0
		for _, n := range sizes {
			named += n
		}
		if named > 1000*2*2*beatsPerTTL { // in two terms, and half as long apart as need be
			t.Errorf("%d leases in them", named)
		}
		for _, a := range all {
			if !a.Held() {
				t.Fatal("one is lost")
			}
		}
	})
}

// Fifty thousand leases are five calls, some at a time, whose time adds up to no term.
func TestManyLeasesOnSlowCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const leases = 5 * beatChunk
		l := &lessor{ttl: term, beat: slow(term/6 - time.Millisecond)}
		c := slots(t, l)
		all := make([]*Admission, leases)
		for i := range all {
			all[i] = kept(t, c)
		}
		<-time.After(3 * term)
		for i, a := range all {
			if !a.Held() || time.Now().After(l.deadline(a)) {
				t.Fatalf("lease %d is lost", i)
			}
		}
		if sizes, most := l.calls(); slices.Max(sizes) > beatChunk || most > beatCalls {
			t.Errorf("calls for up to %d leases, %d at once", slices.Max(sizes), most)
		}
	})
}

// The service says how long a lease lasts, and WithLeaseTTL does where it does not.
func TestTermOfALease(t *testing.T) {
	t.Parallel()
	tests := []struct {
		told    int64
		assumed time.Duration
		want    time.Duration
	}{
		{500, time.Hour, 500 * time.Millisecond},
		{60_000, time.Second, time.Minute},
		{0, 5 * time.Second, 5 * time.Second},
		{-1, 5 * time.Second, 5 * time.Second},
		{1 << 62, time.Second, maxLeaseTTL},
		{0, 1 << 62, maxLeaseTTL},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &lessor{ttl: tt.want, told: tt.told}
				a := kept(t, slots(t, l, WithLeaseTTL(tt.assumed)))
				<-time.After(tt.want*10 + tt.want/beatsPerTTL/2)
				if sizes, _ := l.calls(); !a.Held() || len(sizes) != 10*beatsPerTTL {
					t.Errorf("held %v after %d heartbeats in 10 terms", a.Held(), len(sizes))
				}
			})
		})
	}
}

// Leases of different terms, as when a service came back with another one, are kept each in its time.
func TestDifferentTerms(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &lessor{ttl: time.Minute, told: time.Minute.Milliseconds()}
		c := slots(t, l)
		long := kept(t, c)
		l.mu.Lock()
		l.ttl, l.told = time.Second, 1000
		l.mu.Unlock()
		short := kept(t, c)
		<-time.After(10 * time.Second)
		if sizes, _ := l.calls(); !short.Held() || !long.Held() || len(sizes) < 30 {
			t.Errorf("held %v and %v after %d heartbeats", long.Held(), short.Held(), len(sizes))
		}
		if err := errors.Join(short.Release(), long.Release()); err != nil {
			t.Error(err)
		}
	})
}

// Close loses what heartbeats kept, and what is admitted while it closes.
func TestCloseLosesSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &lessor{ttl: term, beat: func(ctx context.Context, _ int) error { return hang(ctx) }}
		c := slots(t, l)
		a := kept(t, c)
		bare, err := c.Admit(t.Context(), "p", "k")
		if err != nil {
			t.Fatal(err)
		}
		var worked error
		begun := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			worked = c.Do(t.Context(), "p", "k", func(ctx context.Context) error {
				close(begun)
				<-ctx.Done()
				return ctx.Err()
			})
		}()
		<-begun
		<-time.After(term / 2) // a heartbeat is under way
		l.back = func() {
			_ = c.Close()
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.under > 0 {
				t.Error("a heartbeat goes on")
			}
		}
		late := kept(t, c)
		synctest.Wait()
		if !lost(a) || a.Held() || !lost(late) || late.Held() || lost(bare) {
			t.Errorf("kept: lost %v, held %v; late: lost %v, held %v; not kept: lost %v", lost(a), a.Held(), lost(late), late.Held(), lost(bare))
		}
		<-done
		if !errors.Is(worked, ErrReclaimed) || !errors.Is(worked, context.Canceled) {
			t.Errorf("Do: %v", worked)
		}
		if err := a.Release(); err == nil || l.last() != "" {
			t.Errorf("released by a client that is closed: %v", err)
		}
	})
}

// How work ended decides how its slot is given back, and what Do says.
func TestDoEndings(t *testing.T) {
	t.Parallel()
	failed, gone := errors.New("it failed"), errors.New("the user has left")
	type work = func(ctx context.Context) error
	answer := func(err error) work { return func(context.Context) error { return err } }
	tests := []struct {
		name   string
		cancel error         // what the caller's context is cancelled for, before the first heartbeat
		within time.Duration // the deadline of the caller's context
		lose   bool          // the service takes the slot back
		work   work
		end    string
		is     []error
		not    []error
	}{
		{name: "well", work: answer(nil), end: "released"},
		{name: "badly", work: answer(failed), end: "dropped", is: []error{failed}, not: []error{ErrReclaimed}},
		{name: "cancelled by others", work: answer(context.Canceled), end: "dropped", is: []error{context.Canceled}, not: []error{ErrReclaimed}},
		{
			name: "the caller left", cancel: context.Canceled, end: "released", is: []error{context.Canceled}, not: []error{ErrReclaimed},
			work: func(ctx context.Context) error {
				<-ctx.Done()
				return fmt.Errorf("asking: %w", ctx.Err())
			},
		},
		{name: "the caller left, as the cause says", cancel: gone, end: "released", is: []error{gone}, work: func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}},
		{name: "the caller left, as gRPC says", cancel: gone, end: "released", work: func(ctx context.Context) error {
			<-ctx.Done()
			return status.FromContextError(ctx.Err()).Err()
		}, not: []error{ErrReclaimed, context.Canceled}},
		{name: "the caller left, and it went wrong", cancel: gone, end: "dropped", is: []error{failed}, work: func(ctx context.Context) error {
			<-ctx.Done()
			return failed
		}},
		{name: "the caller left, and it went well", cancel: gone, end: "released", work: func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		}},
		{
			name: "the caller left, and the slot was lost later", cancel: gone, lose: true,
			end: "released", is: []error{context.Canceled}, not: []error{ErrReclaimed},
			work: func(ctx context.Context) error {
				<-ctx.Done()
				<-time.After(term)
				return ctx.Err()
			},
		},
		{
			name: "too late", within: term / 2, end: "dropped", is: []error{context.DeadlineExceeded}, not: []error{ErrReclaimed},
			work: func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			},
		},
		{name: "the slot was lost", lose: true, end: "dropped", is: []error{ErrReclaimed, context.Canceled}, work: func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("asking: %w", ctx.Err())
		}},
		{name: "the slot was lost, as gRPC says", lose: true, end: "dropped", is: []error{ErrReclaimed}, work: func(ctx context.Context) error {
			<-ctx.Done()
			return status.FromContextError(ctx.Err()).Err()
		}},
		{name: "the slot was lost, as the cause says", lose: true, end: "dropped", is: []error{ErrReclaimed}, work: func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}},
		{
			name: "the slot was lost, and it failed otherwise", lose: true, end: "dropped", is: []error{failed}, not: []error{ErrReclaimed},
			work: func(ctx context.Context) error {
				<-ctx.Done()
				return failed
			},
		},
		{name: "the slot was lost, and it went well", lose: true, end: "released", work: func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &lessor{ttl: term}
				c := slots(t, l)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.within > 0 {
					var stop context.CancelFunc
					ctx, stop = context.WithTimeout(ctx, tt.within)
					defer stop()
				}
				if tt.cancel != nil {
					time.AfterFunc(term/4, func() { cancel(tt.cancel) })
				}
				err := c.Do(ctx, "p", "k", func(ctx context.Context) error {
					if tt.lose {
						l.mu.Lock()
						clear(l.until)
						l.mu.Unlock()
					}
					return tt.work(ctx)
				})
				if end := l.last(); end != tt.end {
					t.Errorf("%q, want %q", end, tt.end)
				}
				if (err == nil) != (tt.is == nil && tt.not == nil) {
					t.Errorf("got %v", err)
				}
				for _, want := range tt.is {
					if !errors.Is(err, want) {
						t.Errorf("%v is not %v", err, want)
					}
				}
				if err != nil && strings.Count(err.Error(), ErrReclaimed.Error()) > 1 {
					t.Errorf("it says twice: %v", err)
				}
				for _, other := range tt.not {
					if errors.Is(err, other) {
						t.Errorf("%v is %v", err, other)
					}
				}
			})
		})
	}
}

// Work within work whose slot was lost ends as that of a caller who left.
func TestDoWithinDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outer, inner := &lessor{ttl: term}, &lessor{ttl: term}
		c, other := slots(t, outer), slots(t, inner)
		err := c.Do(t.Context(), "p", "k", func(ctx context.Context) error {
			outer.mu.Lock()
			clear(outer.until)
			outer.mu.Unlock()
			return other.Do(ctx, "p", "k", func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			})
		})
		if first, second := outer.last(), inner.last(); !errors.Is(err, ErrReclaimed) || first != "dropped" || second != "released" {
			t.Errorf("%v; the outer slot was %s, the inner one %s", err, first, second)
		}
	})
}

// However many leases are given up at different times, they are looked through some times only.
func TestManyGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &lessor{ttl: term, beat: func(ctx context.Context, _ int) error { return hang(ctx) }}
		c := slots(t, l)
		var mu sync.Mutex
		at := make(map[time.Time]bool)
		var group sync.WaitGroup
		for range 1000 {
			<-time.After(term / 1000)
			a := kept(t, c)
			group.Go(func() {
				<-a.Reclaimed()
				mu.Lock()
				defer mu.Unlock()
				at[time.Now()] = true
			})
		}
		group.Wait()
		if len(at) > turnsPerTTL {
			t.Errorf("given up at %d times", len(at))
		}
	})
}
