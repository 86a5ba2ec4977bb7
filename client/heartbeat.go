package client

import (
	"context"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// DefaultLeaseTTL is how long the leases of a service last that was not told otherwise.
const DefaultLeaseTTL = 2 * time.Second

// WithLeaseTTL says how long the service's leases on slots last, which is for the service to decide. Heartbeats go out three
// times as often, and a lease of which nothing was heard for so long counts as lost. Defaults to [DefaultLeaseTTL].
func WithLeaseTTL(d time.Duration) Option {
	return func(o *options) { o.leaseTTL = d }
}

const (
	// beatsPerTTL is how many heartbeats go out in each term: one may get lost.
	beatsPerTTL = 3
	// beatChunk is how many leases one call renews at most.
	beatChunk = 10_000
)

// beats keeps leases alive by one call for all of them, in a goroutine that runs while there are any.
type beats struct {
	client *Client
	ttl    time.Duration

	mu      sync.Mutex
	held    map[string]*held
	running bool
	done    sync.WaitGroup

	ctx    context.Context //nolint:containedctx // it is the life of the goroutine
	cancel context.CancelFunc
}

// held is an admission whose lease is kept alive.
type held struct {
	admission *Admission
	heard     time.Duration // when the call was sent that renewed it last
}

func newBeats(c *Client, ttl time.Duration) *beats {
	b := &beats{client: c, ttl: ttl, held: make(map[string]*held)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

func (b *beats) add(a *Admission, sent time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil {
		return
	}
	b.held[a.lease] = &held{admission: a, heard: sent}
	if !b.running {
		b.running = true
		b.done.Go(b.run)
	}
}

func (b *beats) remove(a *Admission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.held, a.lease)
}

// close ends the goroutine. Leases are left to themselves.
func (b *beats) close() {
	b.mu.Lock()
	b.cancel() // under the lock, so that no goroutine is started afterwards
	b.mu.Unlock()
	b.done.Wait()
}

func (b *beats) run() {
	next := b.client.elapsed() + b.ttl/beatsPerTTL
	timer := time.NewTimer(b.ttl / beatsPerTTL)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-b.ctx.Done():
			return
		}
		over := b.giveUp()
		if b.client.elapsed() >= next {
			ids, more := b.due()
			if !more {
				return
			}
			next = b.client.elapsed() + b.ttl/beatsPerTTL
			for len(ids) > 0 {
				n := min(len(ids), beatChunk)
				b.beat(ids[:n], over)
				ids = ids[n:]
			}
			over = b.giveUp()
		}
		timer.Reset(min(next, over) - b.client.elapsed())
	}
}

// due are the leases to renew. If there are none, the goroutine ends, and the next admission starts one.
func (b *beats) due() (ids []string, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.held) == 0 {
		b.running = false
		return nil, false
	}
	ids = make([]string, 0, len(b.held))
	for id := range b.held {
		ids = append(ids, id)
	}
	return ids, true
}

// beat renews some leases. What goes wrong is left to the next beat. It waits for no longer than until the first lease is
// over, which somebody has to be told then.
func (b *beats) beat(ids []string, over time.Duration) {
	sent := b.client.elapsed()
	// A second call on the same connection would be no faster than one that is slow.
	bounded, cancel := context.WithTimeout(b.ctx, min(b.ttl-b.ttl/beatsPerTTL, over-sent))
	defer cancel()
	var res throttlekitv1.HeartbeatResponse
	req := &throttlekitv1.HeartbeatRequest{LeaseIds: ids}
	if b.client.call(bounded, throttlekitv1.RateLimiter_Heartbeat_FullMethodName, req, &res) != nil {
		return
	}
	b.mu.Lock()
	for _, id := range res.GetLiveIds() {
		if h := b.held[id]; h != nil {
			h.heard = sent
		}
	}
	lost := make([]*Admission, 0, len(res.GetReclaimedIds()))
	for _, id := range res.GetReclaimedIds() {
		lost = b.drop(lost, id)
	}
	b.mu.Unlock()
	tell(lost)
}

// giveUp gives up leases of which nothing was heard for as long as they last, and says when the next one is over.
func (b *beats) giveUp() (over time.Duration) {
	lasts := throttlekit.Usable(b.ttl)
	now := b.client.elapsed()
	over = now + lasts
	var lost []*Admission
	b.mu.Lock()
	for id, h := range b.held {
		if now-h.heard >= lasts {
			lost = b.drop(lost, id)
		} else {
			over = min(over, h.heard+lasts)
		}
	}
	b.mu.Unlock()
	tell(lost)
	return over
}

func (b *beats) drop(lost []*Admission, id string) []*Admission {
	if h := b.held[id]; h != nil {
		lost = append(lost, h.admission)
		delete(b.held, id)
	}
	return lost
}

func tell(lost []*Admission) {
	for _, a := range lost {
		a.lose()
	}
}
