package concurrency

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// Outage is what a [FleetGuard] does while its fleet's store does not answer.
type Outage string

const (
	// FailClosed goes by the latest share until it may be given to others, and then admits
	// nobody: the guard fences itself.
	FailClosed Outage = "fail-closed"
	// LocalOnly goes by the local limit at once. While it does, the ceiling is not kept.
	LocalOnly Outage = "local-only"
)

// ErrNodeTaken marks a beat that was refused because another process uses the same node id, or
// one that died has used it not long ago. The message names the id and both owners.
var ErrNodeTaken = errors.New("concurrency: the node id is taken")

// FleetConfig describes a [FleetGuard]. Zero values mean the defaults where there are any.
type FleetConfig struct {
	// Local describes the guard of this node. Its Elapsed is the clock of everything here; it
	// must be no more than [throttlekit.Drift] slower than the store's.
	Local Config
	// Ceiling are the rules of the fleet, on which its nodes must agree. It is required.
	Ceiling *Ceiling
	// Store keeps the record of the fleet, under Key; see [CeilingKey]. Both are required.
	Store throttlekit.Store
	Key   string
	// Node names this node, unique in the fleet, as [Report] has it. It is required.
	Node string
	// Owner names the process, so that two of them with one node id are told apart: UTF-8 text
	// of up to 256 bytes. Defaults to host#pid#nonce, which is another one for each guard.
	Owner string
	// Heartbeat is the time from one beat to the next, at least a millisecond. Defaults to one
	// second.
	Heartbeat time.Duration
	// TTL is for how long the fleet keeps the slots of a node that is silent; longer than
	// Heartbeat. Defaults to 2 x Heartbeat.
	TTL time.Duration
	// Outage defaults to FailClosed.
	Outage Outage
	// NoFence lets a guard that is FailClosed admit nobody from the first beat that fails until
	// one succeeds, instead of fencing itself. Then a beat that hangs lets it go on too long.
	NoFence bool
	// FenceMargin is how long before its slots may be given away a guard fences itself: the time
	// that requests have to end. It is positive, and so short that beats in time come before the
	// fence. Defaults to (TTL - Heartbeat)/2, at least a millisecond.
	FenceMargin time.Duration
	// Eager sends a beat ahead of time when it moves slots: a request was refused although the
	// node has less than an equal part, slots that others wait for have come free, or a grant is
	// to be acknowledged. A fleet that is at rest sends none.
	Eager bool
	// MinHeartbeat is the least time from one beat to one that is eager or repeats a failed one;
	// at most Heartbeat. Defaults to Heartbeat/10, at least a millisecond.
	MinHeartbeat time.Duration
	// Timeout bounds each beat; at most Heartbeat, which is the default.
	Timeout time.Duration
	// OnFence is called when the guard has fenced itself, once until it is admitted again, so
	// that the program may abort what is under way.
	OnFence func()
	// OnError is called with the error of a beat that failed; of those that fail while it runs, with
	// the latest.
	//
	// Both run in a goroutine of their own, one at a time, so that they may take their time and call
	// what they like: nothing of the guard waits for them, Close neither. A panic of theirs ends there.
	OnError func(error)
}

const (
	defaultHeartbeat = time.Second
	eagerness        = 10
)

// complete fills the defaults in and refuses what breaks a rule, all fields at once.
func (c FleetConfig) complete() (FleetConfig, error) {
	orElse(&c.Heartbeat, defaultHeartbeat)
	orElse(&c.TTL, 2*c.Heartbeat)
	orElse(&c.Outage, FailClosed)
	orElse(&c.MinHeartbeat, max(time.Millisecond, c.Heartbeat/eagerness))
	orElse(&c.Timeout, c.Heartbeat)
	if c.Owner == "" {
		c.Owner = uniqueOwner()
	}
	var wrong invalid
	local, err := c.Local.complete()
	c.Local, wrong = local, append(wrong, err)
	wrong.require(c.Ceiling != nil, "ceiling", c.Ceiling, "must be given")
	wrong.require(c.Store != nil, "store", c.Store, "must be given")
	wrong.require(c.Key != "", "key", c.Key, "must not be empty")
	wrong.names(c.Node, c.Owner)
	wrong.require(c.Heartbeat >= time.Millisecond, "heartbeat", c.Heartbeat, "must be at least 1ms")
	wrong.require(c.TTL > c.Heartbeat && c.TTL <= longestLease, "ttl", c.TTL, "must be longer than heartbeat and at most 24h")
	wrong.require(c.Outage == FailClosed || c.Outage == LocalOnly, "outage", string(c.Outage), "must be fail-closed or local-only")
	wrong.require(c.MinHeartbeat > 0 && c.MinHeartbeat <= c.Heartbeat, "minHeartbeat", c.MinHeartbeat,
		"must be positive and at most heartbeat")
	wrong.require(c.Timeout > 0 && c.Timeout <= c.Heartbeat, "timeout", c.Timeout, "must be positive and at most heartbeat")
	if c.fences() {
		orElse(&c.FenceMargin, max(time.Millisecond, (c.TTL-c.Heartbeat)/2))
		wrong.require(c.FenceMargin > 0 && c.FenceMargin < throttlekit.Usable(c.TTL)-c.Heartbeat, "fenceMargin", c.FenceMargin,
			"must be positive, and with heartbeat, 0.1 % of ttl and 1ms be less than ttl")
	} else {
		wrong.require(c.FenceMargin == 0, "fenceMargin", c.FenceMargin, "must not be given to a guard that does not fence itself")
	}
	return c, errors.Join(wrong...)
}

// Validate reports every field that breaks a rule, as [NewFleetGuard] would, without making a guard.
func (c FleetConfig) Validate() error {
	_, err := c.complete()
	return err
}

func (c *FleetConfig) fences() bool { return c.Outage == FailClosed && !c.NoFence }

// uniqueOwner names a guard of this process.
func uniqueOwner() string {
	const longestHost = 48   // characters, of up to four bytes each
	host, _ := os.Hostname() // without it the nonce still tells processes apart
	return fmt.Sprintf("%.*s#%d#%.8s", longestHost, host, os.Getpid(), rand.Text())
}

// FleetGuard is a guard whose limit is also its share of what a fleet may have in flight together.
// It reports what it has in flight to a record on a store, by a beat, and gets a share for that;
// see [Ceiling]. A permit costs no I/O: it is given while fewer are in flight than the share and
// the local limit, on a clock that only this process has. It is safe for concurrent use. One
// goroutine sends the beats until Close.
type FleetGuard struct {
	guard  *Guard
	config FleetConfig
	lasts  time.Duration // from when a beat is sent until the fence

	turn  chan struct{} // holds what is in it while a beat is under way, and for good once closed
	stop  chan struct{}
	work  sync.WaitGroup // the beats
	voice voice
	leave func() error

	// Under the guard's lock:
	seq      int64         // of the latest beat
	sent     time.Duration // when the latest beat was that was answered or failed
	retry    time.Duration // from then until the next one if it has failed, or 0
	hasty    bool          // there is news
	applied  int64         // generation of the grant that the guard goes by, -1 without one
	acked    int64         // greatest generation that the fleet knows to be applied
	ceiling  int
	nodes    int
	watching *time.Timer // fires at the fence
}

// FleetStats is what a [FleetGuard] knows at one moment.
type FleetStats struct {
	// Stats is that of the guard of this node; its Limit is the local one.
	Stats

	// Share is how many the fleet lets be in flight here; 0 before the first beat, and the local
	// limit where only that counts.
	Share int
	// Ceiling is how many may be in flight in the whole fleet, and Nodes is how many nodes it
	// has, by the latest beat that succeeded.
	Ceiling, Nodes int
	// Fenced says that the guard admits nobody because it has not been heard for too long. It does
	// so Margin before its slots may be given away, or never if Margin is 0.
	Fenced bool
	Margin time.Duration
}

// NewFleetGuard returns a guard that joins its fleet with its first beat, which is sent at once.
// Until then it has no share, or if LocalOnly all of the local limit. The caller must Close it. The
// error matches [throttlekit.ErrInvalid] and names every field that breaks a rule.
func NewFleetGuard(config FleetConfig) (*FleetGuard, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	guard, err := NewGuard(config.Local)
	if err != nil {
		return nil, err
	}
	f := &FleetGuard{
		guard: guard, config: config, lasts: throttlekit.Usable(config.TTL) - config.FenceMargin,
		turn: make(chan struct{}, 1), stop: make(chan struct{}),
		sent: guard.elapsed() - config.Heartbeat, applied: -1,
	}
	f.voice.onError = config.OnError
	f.leave = sync.OnceValue(f.close)
	guard.part.news = make(chan struct{}, 1)
	if config.Outage == FailClosed {
		guard.part.slots = 0
	}
	f.work.Go(f.run)
	return f, nil
}

// TryAcquire asks for a permit and never waits. A guard that is closed or fenced, or has no share
// yet, refuses.
func (f *FleetGuard) TryAcquire() Permit { return f.guard.TryAcquire() }

// Acquire asks for a permit as [Guard.Acquire] does. Who waits is also served when the share grows,
// and waits on while the guard is fenced.
func (f *FleetGuard) Acquire(ctx context.Context) (Permit, error) {
	return f.guard.AcquirePriority(ctx, Normal)
}

// AcquirePriority is Acquire with a place in the queue of a priority, as [Guard.AcquirePriority].
func (f *FleetGuard) AcquirePriority(ctx context.Context, priority Priority) (Permit, error) {
	return f.guard.AcquirePriority(ctx, priority)
}

// Stats is what the guard knows now.
func (f *FleetGuard) Stats() FleetStats {
	g := f.guard
	now := g.elapsed()
	g.mu.Lock()
	defer g.mu.Unlock()
	s := FleetStats{
		Stats: g.stats(), Share: g.part.slots, Ceiling: f.ceiling, Nodes: f.nodes,
		Fenced: now >= g.part.until, Margin: f.config.FenceMargin,
	}
	switch {
	case g.closed:
		s.Share = 0
	case s.Share == unlimited:
		s.Share = s.Limit
	}
	return s
}

// run sends beats until the guard is closed.
func (f *FleetGuard) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-f.guard.part.news:
			f.hasten()
		case <-timer.C:
			if f.due() <= 0 {
				_ = f.Beat(context.Background()) // OnError knows
			}
		}
		timer.Reset(f.due())
	}
}

// hasten makes the next beat an eager one.
func (f *FleetGuard) hasten() {
	f.guard.mu.Lock()
	defer f.guard.mu.Unlock()
	f.hasty = true
}

// due is how long it is until the next beat.
func (f *FleetGuard) due() time.Duration {
	now := f.guard.elapsed()
	f.guard.mu.Lock()
	defer f.guard.mu.Unlock()
	gap := cmp.Or(f.retry, f.config.Heartbeat)
	if f.hasty {
		gap = f.config.MinHeartbeat
	}
	return f.sent + gap - now
}

// Beat tells the fleet now what is in flight here, and takes the share that it answers with. It is
// for programs that want their share before they serve; beats are sent without it. One beat is under
// way at a time, for no longer than Timeout each.
//
// The error is that of ctx or the store, matches [ErrNodeTaken], or is [throttlekit.ErrClosed]. Then
// the share stays what it is until the guard fences itself, unless Outage or NoFence say otherwise.
func (f *FleetGuard) Beat(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case f.turn <- struct{}{}:
	case <-f.stop:
		return throttlekit.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	err := f.beat(ctx)
	<-f.turn
	if err != nil && !errors.Is(err, throttlekit.ErrClosed) {
		f.voice.say(nil, err)
	}
	return err
}

func (f *FleetGuard) beat(ctx context.Context) error {
	f.fence()
	r, sent, open := f.snapshot()
	if !open {
		return throttlekit.ErrClosed
	}
	bounded, cancel := context.WithTimeout(ctx, f.config.Timeout)
	defer cancel()
	share, err := f.exchange(bounded, r)
	if err != nil {
		abandoned := ctx.Err() != nil // by who asked for this beat, which says nothing about the store
		f.fail(sent, abandoned)
		if bounded.Err() != nil && !abandoned {
			err = fmt.Errorf("%w: no answer to a beat within %v: %w", throttlekit.ErrStoreUnavailable, f.config.Timeout, err)
		}
		return err
	}
	f.adopt(r, sent, share)
	return nil
}

// snapshot is what a beat reports, all of one moment, and a time before it is sent.
func (f *FleetGuard) snapshot() (r Report, sent time.Duration, open bool) {
	g := f.guard
	sent = g.elapsed()
	g.mu.Lock()
	defer g.mu.Unlock()
	f.seq++
	f.hasty = false
	return Report{
		Node: f.config.Node, Owner: f.config.Owner, TTL: f.config.TTL,
		Limit: g.law.limit(), InFlight: g.inFlight, Seq: f.seq, Applied: f.applied,
	}, sent, !g.closed
}

// exchange is one round trip to the store, or two if the node id is taken.
func (f *FleetGuard) exchange(ctx context.Context, r Report) (Share, error) {
	move, err := f.config.Ceiling.Beat(r)
	if err != nil {
		return Share{}, err
	}
	d, err := f.config.Store.Apply(ctx, f.config.Key, move, 1)
	switch {
	case err != nil || d.Allowed:
		return ShareOf(d), err
	case d.Limit > 0:
		return Share{}, fmt.Errorf("%w: the fleet has its %d nodes, and %q is not among them",
			throttlekit.ErrStoreUnavailable, d.Limit, r.Node)
	}
	rec, _, err := f.config.Store.Load(ctx, f.config.Key, move)
	if err != nil {
		return Share{}, fmt.Errorf("%w: %q, and not by %q: %w", ErrNodeTaken, r.Node, r.Owner, err)
	}
	return Share{}, fmt.Errorf("%w: %q is used by %q and not by %q, for another %v unless it beats",
		ErrNodeTaken, r.Node, f.config.Ceiling.OwnerOf(rec, r.Node), r.Owner, time.Duration(d.RetryAfterMillis)*time.Millisecond)
}

// adopt makes a share that was granted for a report the guard's.
func (f *FleetGuard) adopt(r Report, sent time.Duration, share Share) {
	g := f.guard
	now := g.elapsed()
	g.mu.Lock()
	defer g.mu.Unlock()
	p := &g.part
	p.slots = share.Slots
	f.ceiling, f.nodes, f.applied = share.Ceiling, share.Nodes, share.Generation
	f.acked = max(f.acked, r.Applied)
	f.sent, f.retry = sent, 0
	if f.config.fences() {
		f.extend(sent+f.lasts, now)
	}
	if g.waiting > 0 {
		g.serve(now)
	}
	if f.config.Eager {
		p.short = share.Nodes > 0 && share.Slots < share.Ceiling/share.Nodes
		p.over = r.InFlight > share.Slots
		p.ended(g.inFlight)
		if g.waiting > 0 {
			p.refused(g.inFlight)
		}
		if f.applied > f.acked {
			p.tell()
		}
	}
}

// extend moves the fence. An answer that came too late does not lift it.
func (f *FleetGuard) extend(until, now time.Duration) {
	p := &f.guard.part
	if p.until == fenced && until <= now {
		return
	}
	p.until = until
	if f.watching == nil {
		f.watching = time.AfterFunc(until-now, f.fence)
	} else {
		f.watching.Reset(until - now)
	}
}

// fence makes it known that the guard's time has passed, if it has. From then on nobody is admitted
// who read the clock before that and was held up since.
func (f *FleetGuard) fence() {
	g := f.guard
	now := g.elapsed()
	g.mu.Lock()
	until := g.part.until
	if g.closed || until == never || until == fenced {
		g.mu.Unlock()
		return
	}
	if now < until {
		f.watching.Reset(until - now)
		g.mu.Unlock()
		return
	}
	g.part.until = fenced
	g.mu.Unlock()
	f.voice.say(f.config.OnFence, nil)
}

// fail takes note of a beat that may not have arrived.
func (f *FleetGuard) fail(sent time.Duration, abandoned bool) {
	g := f.guard
	now := g.elapsed()
	g.mu.Lock()
	defer g.mu.Unlock()
	p := &g.part
	if abandoned {
		p.tell() // what the beat was to tell is still to be told
		return
	}
	p.short, p.over = false, false // what there is to tell must wait
	f.sent, f.retry = sent, min(max(2*f.retry, f.config.MinHeartbeat), f.config.Heartbeat)
	switch {
	case f.config.Outage == LocalOnly:
		p.slots = unlimited
		g.serve(now)
	case f.config.NoFence:
		p.slots = 0
	default: // the slots are kept for the node until the fence
	}
}

// Close refuses those who wait and who come later, and leaves the fleet, whose other nodes then get
// what was this one's. Permits in flight are ended as ever, and the store is not asked for that; if
// there are any, the fleet keeps the slots until the TTL has passed, since they may not be given
// away. After Close no beat is sent.
//
// Close takes no longer than twice Timeout, and than two seconds. The error says that the fleet could
// not be told, so that the slots are kept until the TTL has passed since the latest beat. Close may be
// called more than once; the answer is always that of the first time.
func (f *FleetGuard) Close() error { return f.leave() }

// longestGoodbye bounds each of the two things that Close waits for.
const longestGoodbye = time.Second

func (f *FleetGuard) close() error {
	_ = f.guard.Close() // never fails
	close(f.stop)
	timeout := min(f.config.Timeout, longestGoodbye)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	select {
	case f.turn <- struct{}{}: // a beat that is under way would join again what has left
	case <-ctx.Done():
		return fmt.Errorf("concurrency: leaving the fleet: the beat that is under way does not end: %w", ctx.Err())
	}
	f.work.Wait()
	ctx, cancel = context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var err error
	if f.idle() {
		err = f.depart(ctx)
	} else {
		// The slots are in use. Those who use them may need as long as anybody to hear that the node is gone.
		r, _, _ := f.snapshot()
		_, err = f.exchange(ctx, r)
	}
	if err != nil {
		return fmt.Errorf("concurrency: leaving the fleet: %w", err)
	}
	return nil
}

// idle stops the watch for the fence, and reports whether nothing is in flight.
func (f *FleetGuard) idle() bool {
	f.guard.mu.Lock()
	defer f.guard.mu.Unlock()
	if f.watching != nil {
		f.watching.Stop()
	}
	return f.guard.inFlight == 0
}

// depart takes the node out of the fleet's record.
func (f *FleetGuard) depart(ctx context.Context) error {
	move, err := f.config.Ceiling.Leave(f.config.Node, f.config.Owner)
	if err == nil {
		_, err = f.config.Store.Apply(ctx, f.config.Key, move, 1)
	}
	return err
}
