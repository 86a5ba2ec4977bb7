package monitor

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go/service"
)

func watch(tb testing.TB, h *Hub, policy string) *Subscription {
	tb.Helper()
	s, err := h.Watch(policy)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

func (c clock) of(policy, key string) service.Event {
	e := c.event(key, false)
	e.Policy.Name = policy
	return e
}

func TestWatch(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	h.Decided(c.event("before", false))
	all, some := watch(t, h, ""), watch(t, h, "q")
	h.Decided(c.event("allowed", true))
	h.Decided(c.of("p", "1"))
	h.Decided(c.of("q", "2"))
	for _, want := range []string{"p1", "q2"} {
		if d := <-all.Events(); d.Policy+d.Key != want || d.At != epoch || d.Decision.Limit != 5 {
			t.Errorf("got %+v, want %s", d, want)
		}
	}
	if d := <-some.Events(); d.Key != "2" {
		t.Errorf("got %+v", d)
	}
	if got := h.Snapshot(t.Context()).Watch; got != (Watch{Watchers: 2}) {
		t.Errorf("got %+v", got)
	}
	all.Close()
	all.Close()
	h.Decided(c.of("q", "3"))
	if d := <-some.Events(); d.Key != "3" {
		t.Errorf("got %+v", d)
	}
	some.Close()
	if h.Watchers() != 0 || h.feed.queue.Load() != nil {
		t.Error("somebody listens still")
	}
	again := watch(t, h, "")
	h.Decided(c.of("p", "4"))
	if d := <-again.Events(); d.Key != "4" {
		t.Errorf("got %+v", d)
	}
}

// A subscription takes at most 500 in a second, and the rest is counted.
func TestSubscriptionRate(t *testing.T) {
	t.Parallel()
	f := new(feed)
	s := &Subscription{feed: f, events: make(chan Denial, 2000)}
	for i := range 700 {
		s.take(Denial{At: epoch + int64(i)%1000}, perSecond)
	}
	if got := len(s.events); got != 500 || s.Dropped() != 200 || f.dropped.Load() != 200 {
		t.Errorf("%d taken, %d dropped", got, s.Dropped())
	}
	s.take(Denial{At: epoch + 1000}, perSecond)
	if got := len(s.events); got != 501 {
		t.Errorf("%d taken in the next second", got)
	}
}

// A hundred readers share what all of them together are handed, and each gets something.
func TestReadersShare(t *testing.T) {
	t.Parallel()
	f := &feed{subscriptions: make(map[*Subscription]struct{})}
	for range 100 {
		f.subscriptions[&Subscription{feed: f, events: make(chan Denial, 2000)}] = struct{}{}
	}
	for i := range int64(10) {
		for range 50 {
			f.hand(Denial{At: epoch + 100*i})
		}
	}
	for s := range f.subscriptions {
		if got := len(s.events); got != 10 || s.Dropped() != 490 {
			t.Errorf("%d taken, %d dropped", got, s.Dropped())
		}
	}
}

// They do not get it all at the same moment.
func TestReadersTakeTurns(t *testing.T) {
	t.Parallel()
	h := hubAt(t, newClock(), Config{})
	all := make([]*Subscription, 100)
	for i := range all {
		all[i] = watch(t, h, "")
	}
	held := func() (n int) {
		for _, s := range all {
			n += len(s.Events())
		}
		return n
	}
	for ms := range int64(300) { // the first denial goes to everybody
		before := held()
		h.feed.hand(Denial{At: epoch + ms})
		if handed := held() - before; ms > 0 && handed != 1 {
			t.Fatalf("after %d ms: %d readers at once", ms, handed)
		}
	}
}

// A slow reader has what its buffer holds; the others have everything, and so has the snapshot.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	slow, fast := watch(t, h, ""), watch(t, h, "")
	for i := range 400 {
		h.Decided(c.of("p", strconv.Itoa(i)))
		if d := <-fast.Events(); d.Key != strconv.Itoa(i) {
			t.Fatalf("got %+v, want %d", d, i)
		}
	}
	untilDropped := func(n int64) {
		for slow.Dropped() < n { // the goroutine that hands out may be a step behind
			if t.Context().Err() != nil {
				t.Fatal("nothing dropped")
			}
		}
	}
	untilDropped(400 - subscriptionRoom)
	if len(slow.Events()) != subscriptionRoom || slow.Dropped() != 400-subscriptionRoom || fast.Dropped() != 0 {
		t.Errorf("%d held, %d and %d dropped", len(slow.Events()), slow.Dropped(), fast.Dropped())
	}
}

// One policy's flood leaves room for another's denials.
func TestFloodLeavesRoom(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	quiet := watch(t, h, "quiet")
	for range 100_000 {
		h.Decided(c.of("loud", "k"))
	}
	for len(*h.feed.queue.Load()) > 0 {
		if t.Context().Err() != nil {
			t.Fatal("the queue is not emptied")
		}
	}
	h.Decided(c.of("quiet", "k"))
	if d := <-quiet.Events(); d.Policy != "quiet" {
		t.Errorf("got %+v", d)
	}
}

// Denials, readers that come and go, and readers that never read, all at once.
func TestWatchAtOnce(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	for range 100 {
		watch(t, h, "")
	}
	stop := make(chan struct{})
	var churn, writers sync.WaitGroup
	for range 4 {
		churn.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s, err := h.Watch("p1")
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case <-s.Events():
				case <-stop:
				case <-time.After(time.Millisecond):
				}
				s.Close()
			}
		})
	}
	for g := range 4 {
		writers.Go(func() {
			for i := range 50_000 {
				if i%100 == 0 {
					c.Advance(time.Millisecond)
				}
				h.Decided(c.of(fmt.Sprint("p", (g+i)%3), "k"))
			}
		})
	}
	writers.Wait()
	close(stop)
	churn.Wait()
}

func TestWatchersAreBounded(t *testing.T) {
	t.Parallel()
	h := hubAt(t, newClock(), Config{})
	for range maxSubscriptions {
		watch(t, h, "")
	}
	if _, err := h.Watch(""); !errors.Is(err, ErrTooManyWatchers) {
		t.Errorf("got %v", err)
	}
}
