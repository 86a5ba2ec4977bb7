package monitor

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/throttlekit/throttlekit-go/service"
)

const (
	// feedRoom is how many denials may wait for the goroutine that hands them out.
	feedRoom = 1024
	// subscriptionRoom is how many may wait for one reader.
	subscriptionRoom = 256
	// handedPerTenth bounds what more than a few readers together are handed in a tenth of a second. Each message costs the process
	// some ten microseconds on its way out, so that without a bound a hundred readers would take a processor, and with one five times
	// as high the 99th percentile of the checks beside them doubled.
	handedPerTenth = 100
	fewReaders     = 10
	// maxSubscriptions bounds the readers.
	maxSubscriptions = 1024
)

// ErrTooManyWatchers marks a Watch beyond what a hub serves at once.
var ErrTooManyWatchers = errors.New("monitor: 1,024 readers watch already")

// feed hands denials to subscriptions. A decision gives a denial to one queue, whatever the number of readers, and one
// goroutine hands it on. There is none while nobody listens.
type feed struct {
	queue   atomic.Pointer[chan Denial] // nil while nobody listens
	dropped atomic.Int64                // because the queue or the buffer of a reader was full, or it has had its share of a second

	mu            sync.Mutex
	subscriptions map[*Subscription]struct{}
	begun         int64 // how many subscriptions there have been
	stop          chan struct{}
	stopped       chan struct{}
}

// offer passes a denial on, or drops it: it never waits.
func (f *feed) offer(e *service.Event, at int64) {
	queue := f.queue.Load()
	if queue == nil {
		return
	}
	// Full is what it is in a flood, and then the key need not be copied.
	if len(*queue) == cap(*queue) {
		f.dropped.Add(1)
		return
	}
	select {
	case *queue <- denialOf(at, e.Policy.Name, shown(e.Key), lane(e), e.Decision):
	default:
		f.dropped.Add(1)
	}
}

// run hands denials on until it is stopped.
func (f *feed) run(queue <-chan Denial, stop <-chan struct{}, stopped chan<- struct{}) {
	defer close(stopped)
	for {
		select {
		case d := <-queue:
			f.hand(d)
		case <-stop:
			return
		}
	}
}

func (f *feed) hand(d Denial) {
	f.mu.Lock()
	defer f.mu.Unlock()
	share := perSecond
	if n := len(f.subscriptions); n > fewReaders {
		share = max(1, handedPerTenth/n)
	}
	for s := range f.subscriptions {
		if s.policy == "" || s.policy == d.Policy {
			s.take(d, share)
		}
	}
}

// Subscription is a stream of denials from now on, for one reader.
type Subscription struct {
	feed    *feed
	policy  string
	events  chan Denial
	second  paced
	tenth   paced
	phase   int64 // by how much its tenths of a second begin before those of the clock, in milliseconds
	dropped atomic.Int64
}

// paced counts events in one span of time after another.
type paced struct {
	span int64
	n    int
}

func (p *paced) in(span int64) int {
	if span != p.span {
		p.span, p.n = span, 0
	}
	return p.n
}

// take puts a denial into the buffer if there is room, and if its second and its tenth of a second have any left.
func (s *Subscription) take(d Denial, share int) {
	if s.second.in(d.At/1000) < perSecond && s.tenth.in((d.At+s.phase)/100) < share {
		select {
		case s.events <- d:
			s.second.n++
			s.tenth.n++
			return
		default:
		}
	}
	s.dropped.Add(1)
	s.feed.dropped.Add(1)
}

// Watch subscribes to the denials of the policy of this name, or of all if it is empty, without those from before. The stream
// is a sample: at most 500 a second, fewer with more than ten readers, who share 1,000, and none that the reader has left no room
// for; it has room for 256. The caller must Close it. The error is [ErrTooManyWatchers] if there are 1,024 readers already.
func (h *Hub) Watch(policy string) (*Subscription, error) {
	f := &h.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.subscriptions) >= maxSubscriptions {
		return nil, ErrTooManyWatchers
	}
	// Readers that all got their share of a tenth at its beginning would keep the processors from everybody else at that moment. So the
	// tenths of each begin elsewhere, by steps that spread any number of readers well.
	f.begun++
	s := &Subscription{feed: f, policy: policy, events: make(chan Denial, subscriptionRoom), phase: f.begun * 61 % 100}
	if len(f.subscriptions) == 0 {
		queue := make(chan Denial, feedRoom)
		f.subscriptions = make(map[*Subscription]struct{})
		f.stop, f.stopped = make(chan struct{}), make(chan struct{})
		go f.run(queue, f.stop, f.stopped)
		f.queue.Store(&queue)
	}
	f.subscriptions[s] = struct{}{}
	return s, nil
}

// Events are the denials, oldest first. The channel is never closed.
func (s *Subscription) Events() <-chan Denial { return s.events }

// Dropped is how many were left out because the reader was slow or there were more than 500 in a second.
func (s *Subscription) Dropped() int64 { return s.dropped.Load() }

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	f := s.feed
	f.mu.Lock()
	_, open := f.subscriptions[s]
	delete(f.subscriptions, s)
	var stopped chan struct{}
	if open && len(f.subscriptions) == 0 {
		f.queue.Store(nil)
		close(f.stop)
		stopped = f.stopped
	}
	f.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
}

// watchers is how many there are.
func (f *feed) watchers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subscriptions)
}

// Watchers is how many subscriptions there are.
func (h *Hub) Watchers() int { return h.feed.watchers() }
