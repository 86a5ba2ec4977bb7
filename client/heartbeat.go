package client

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// DefaultLeaseTTL is how long leases are taken to last if neither the service nor [WithLeaseTTL] says so: as long as those
// of a service that was not told otherwise.
const DefaultLeaseTTL = 2 * time.Second

// WithLeaseTTL says how long leases on slots last, at least 1ms, with services that do not tell; those of this project do, and
// what the service says counts. More than the truth loses slots that look held. Defaults to [DefaultLeaseTTL].
func WithLeaseTTL(d time.Duration) Option {
	return func(o *options) { o.leaseTTL = d }
}

const (
	// maxLeaseTTL is the longest term that is believed. To beat more often than the service asks for does no harm.
	maxLeaseTTL = 24 * time.Hour
	// beatsPerTTL is how many heartbeats go out in each term: one may get lost.
	beatsPerTTL = 3
	// answerShare is the part of a term that the answer to an Admit is taken to need for its way back at most.
	answerShare = 4
	// turnsPerTTL is how often the leases are looked through at most, but for new ones that are due sooner. By so much of
	// the term a lease is given up early, twice as much at most.
	turnsPerTTL = 50
	// beatChunk is how many leases one call renews at most, and beatCalls how many calls go out at once.
	beatChunk = 10_000
	beatCalls = 4
)

// beats keeps leases alive by one call for all of them.
//
// A lease is over a term after it was granted or renewed, by the service's clock. When that was the client does not know,
// but it was not before the call was sent: who gives a lease up a term after that does so before the service can. So
// it is with renewals, and with an Admit that was answered soon. One that took long has most likely waited for its slot,
// and its lease, counted from the call, could be over before it began. It counts from a quarter of the term before the
// answer instead (answerShare), and is renewed at once, which brings out whether it is still held, and gives it an end
// that is certain. Too many can hold a slot then only if the way back took more than that quarter, and only until a
// heartbeat is answered, or the lease given up.
//
// Heartbeats wait for none before them, and leases are given up by a timer that waits for no call. So a lease lives on as
// long as answers take less than two thirds of a term, or every other heartbeat is lost.
type beats struct {
	client *Client
	ctx    context.Context //nolint:containedctx // it is the life of the calls
	cancel context.CancelFunc
	calls  sync.WaitGroup

	mu     sync.Mutex
	held   map[string]*held
	timer  *time.Timer   // nil before the first lease
	next   time.Duration // when the timer ends, if it is armed
	armed  bool
	turned time.Duration // when the leases were looked through last
	closed bool
}

// held is an admission whose lease is kept alive.
type held struct {
	admission *Admission
	ttl       time.Duration
	heard     time.Duration // from when the term counts
	due       time.Duration // when the next heartbeat is
}

// over is when the lease counts as lost.
func (h *held) over() time.Duration { return h.heard + throttlekit.Usable(h.ttl) - h.ttl/turnsPerTTL }

func newBeats(c *Client) *beats {
	b := &beats{client: c, held: make(map[string]*held)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// add keeps a lease alive that lasts for ttl and was granted after the call for it was sent.
func (b *beats) add(a *Admission, sent, ttl time.Duration) {
	ttl = min(ttl, maxLeaseTTL)
	h := &held{admission: a, ttl: ttl, heard: sent, due: sent + ttl/beatsPerTTL}
	b.mu.Lock()
	if now := b.client.elapsed(); sent < now-ttl/answerShare {
		h.heard, h.due = now-ttl/answerShare, max(now, b.turned+ttl/turnsPerTTL)
	}
	closed := b.closed
	if !closed {
		b.held[a.lease] = h
		b.arm(h.due)
	}
	b.mu.Unlock()
	if closed {
		a.lose()
	}
}

func (b *beats) remove(a *Admission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.held, a.lease)
}

// close gives all leases up and ends the calls.
func (b *beats) close() {
	b.mu.Lock()
	b.closed = true // under the lock, so that no call begins afterwards
	if b.timer != nil {
		b.timer.Stop()
	}
	lost := make([]*Admission, 0, len(b.held))
	for _, h := range b.held {
		lost = append(lost, h.admission)
	}
	clear(b.held)
	b.mu.Unlock()
	tell(lost)
	b.cancel()
	b.calls.Wait()
}

// arm has the leases looked through at a time, or before.
func (b *beats) arm(at time.Duration) {
	if b.armed && b.next <= at {
		return
	}
	b.armed, b.next = true, at
	after := max(0, at-b.client.elapsed())
	if b.timer == nil {
		b.timer = time.AfterFunc(after, b.turn)
	} else {
		b.timer.Reset(after)
	}
}

// turn gives up the leases that are over, and sends heartbeats for those that are due or soon will be, so that most of
// them go together. Without leases the timer rests until the next one.
func (b *beats) turn() {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	now := b.client.elapsed()
	b.turned, b.armed = now, false
	var lost []*Admission
	var due []string
	var longest time.Duration
	next := now + maxLeaseTTL
	for id, h := range b.held {
		if h.over()-now <= h.ttl/turnsPerTTL {
			lost = append(lost, h.admission)
			delete(b.held, id)
			continue
		}
		if h.due-now <= h.ttl/beatsPerTTL/2 {
			due = append(due, id)
			h.due = now + h.ttl/beatsPerTTL
			longest = max(longest, h.ttl)
		}
		next = min(next, h.due, h.over())
	}
	if len(b.held) > 0 {
		b.arm(next)
	}
	b.send(due, longest-longest/beatsPerTTL)
	b.mu.Unlock()
	tell(lost)
}

// send renews leases by calls that end within a time: what is answered later than that comes too late for a lease that
// was renewed a beat before. The lock is held.
func (b *beats) send(ids []string, within time.Duration) {
	calls := (len(ids) + beatChunk - 1) / beatChunk
	if calls == 0 {
		return
	}
	chunks := make(chan []string, calls)
	for chunk := range slices.Chunk(ids, beatChunk) {
		chunks <- chunk
	}
	close(chunks)
	end := time.Now().Add(within)
	for range min(calls, beatCalls) {
		b.calls.Go(func() {
			ctx, cancel := context.WithDeadline(b.ctx, end)
			defer cancel()
			for chunk := range chunks {
				b.beat(ctx, chunk)
			}
		})
	}
}

// beat renews some leases. What goes wrong is left to the next beat.
func (b *beats) beat(ctx context.Context, ids []string) {
	sent := b.client.elapsed()
	var res throttlekitv1.HeartbeatResponse
	req := &throttlekitv1.HeartbeatRequest{LeaseIds: ids}
	if b.client.call(ctx, throttlekitv1.RateLimiter_Heartbeat_FullMethodName, req, &res) != nil {
		return
	}
	var lost []*Admission
	b.mu.Lock()
	for _, id := range res.GetLiveIds() {
		if h := b.held[id]; h != nil {
			h.heard = max(h.heard, sent)
		}
	}
	for _, id := range res.GetReclaimedIds() {
		if h := b.held[id]; h != nil {
			lost = append(lost, h.admission)
			delete(b.held, id)
		}
	}
	b.mu.Unlock()
	tell(lost)
}

func tell(lost []*Admission) {
	for _, a := range lost {
		a.lose()
	}
}
