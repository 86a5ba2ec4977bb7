package monitor

import (
	"context"
	"errors"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

// DefaultWindow is how long counters run before they start from 0 again.
const DefaultWindow = time.Minute

// maxPolicies bounds the policies of a hub when it learns of one from its decisions alone, as no source has told it.
const maxPolicies = 10_000

// Config says who watches what. The zero value is fine.
type Config struct {
	// Node is the server's name for itself, such as its address. Empty means that it has none.
	Node string
	// Backend is where the state is: memory, redis, postgres or dynamodb. Snapshots forecast with "memory" only, because
	// elsewhere that would cost a round trip. Empty leaves the health out of snapshots.
	Backend string
	// FailMode is the service's. Empty means service.FailOpen.
	FailMode service.FailMode
	// Window is how long counters run, at least 1 s, in whole milliseconds. Defaults to DefaultWindow.
	Window time.Duration
	// Now is the clock that snapshots are made by. It must agree with that of the service, which says when decisions were
	// made. Defaults to [time.Now].
	Now func() time.Time
}

// Source is what a hub reads when a snapshot is made. A [service.Service] is one. If it also has the method Forecast of
// [service.Service], snapshots forecast.
type Source interface {
	// Policies are all policies, in the order in which they are shown.
	Policies() []service.Info
	// Guards are the guards of those that have one.
	Guards() []service.GuardState
	// Shares are the shares of those that divide a limit among tenants.
	Shares() []service.ShareState
	// FailModeCount is how many decisions the fail mode has made.
	FailModeCount() int64
}

// forecaster is a Source that can also look ahead.
type forecaster interface {
	Forecast(ctx context.Context, policy, key string, cost float64) (throttlekit.Forecast, error)
}

// Hub watches the decisions of one service. It is safe for concurrent use.
type Hub struct {
	config Config
	width  int64 // of a window, in milliseconds
	hasher hasher
	source atomic.Pointer[Source]
	store  atomic.Pointer[WatchedStore]

	mu       sync.Mutex // serializes additions to policies
	policies atomic.Pointer[directory]
	ahead    map[string]*policy // of ForPolicy, which become known together: at Attach, or when somebody looks for one

	shares shares

	denials ring[denial]
	fences  ring[Fence]
	feed    feed
	rooms   costRooms
}

var _ service.FenceTap = (*Hub)(nil)

// New returns a hub. The error matches [throttlekit.ErrInvalid] and names everything that is wrong.
func New(config Config) (*Hub, error) {
	if config.Window == 0 {
		config.Window = DefaultWindow
	}
	if config.FailMode == "" {
		config.FailMode = service.FailOpen
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	var wrong []error
	if config.Window < time.Second || config.Window%time.Millisecond != 0 {
		wrong = append(wrong, &throttlekit.InvalidError{
			Field: "Window", Value: config.Window, Rule: "must be at least 1s and a whole number of milliseconds",
		})
	}
	if config.FailMode != service.FailOpen && config.FailMode != service.FailClosed {
		wrong = append(wrong, &throttlekit.InvalidError{
			Field: "FailMode", Value: string(config.FailMode), Rule: "must be open or closed",
		})
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	h := &Hub{config: config, width: config.Window.Milliseconds(), hasher: hasher{maphash.MakeSeed()}}
	h.policies.Store(newDirectory(nil))
	return h, nil
}

// Attach says whose decisions these are. What is known of policies that the source does not have is forgotten; what is known of
// the others goes on. It may be called again, with a source that takes the place of the one before.
func (h *Hub) Attach(source Source) error {
	if source == nil {
		return &throttlekit.InvalidError{Field: "source", Value: nil, Rule: "must be given"}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.publish()
	known, next := h.policies.Load().byName, make(map[string]*policy)
	for _, info := range source.Policies() {
		if next[info.Name] = known[info.Name]; next[info.Name] == nil {
			next[info.Name] = newPolicy(info)
		}
	}
	h.policies.Store(newDirectory(next))
	h.source.Store(&source)
	h.shares.forget()
	return nil
}

// AttachStore has snapshots tell how the store does.
func (h *Hub) AttachStore(store *WatchedStore) { h.store.Store(store) }

// Decided implements [service.Tap].
func (h *Hub) Decided(e service.Event) {
	if p := h.known(e.Policy); p != nil {
		h.decided(p, &e)
	}
}

func (h *Hub) decided(p *policy, e *service.Event) {
	at := e.At.UnixMilli()
	if p.decided(e, h.hasher, at, h.width) {
		h.show(e, at)
	}
}

// ForPolicy is the hub for the decisions of one policy only, which spares it finding out whose each of them is.
func (h *Hub) ForPolicy(info service.Info) service.Tap {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.policies.Load().byName[info.Name]
	if p == nil {
		p = h.ahead[info.Name]
	}
	if p == nil {
		p = newPolicy(info)
		if h.ahead == nil {
			h.ahead = make(map[string]*policy)
		}
		h.ahead[info.Name] = p
	}
	return &policyTap{hub: h, policy: p}
}

// publish makes policies known that ForPolicy has made. It is called under the lock.
func (h *Hub) publish() {
	if len(h.ahead) == 0 {
		return
	}
	next := maps.Clone(h.policies.Load().byName)
	maps.Copy(next, h.ahead)
	h.ahead = nil
	h.policies.Store(newDirectory(next))
}

// policyTap is a hub that knows the policy beforehand.
type policyTap struct {
	hub    *Hub
	policy *policy
}

// Decided implements [service.Tap].
func (t *policyTap) Decided(e service.Event) { t.hub.decided(t.policy, &e) }

// Checked is Decided for a check that the store decided, without an event around it, which would take as long as all
// that is done here. An elapsed time of 0 was not measured.
func (t *policyTap) Checked(key string, cost float64, d throttlekit.Decision, atMillis int64, elapsed time.Duration) {
	if elapsed > 0 {
		t.policy.timings.add(elapsed)
	}
	if t.policy.checked(key, cost, d, t.hub.hasher, atMillis, t.hub.width) {
		t.hub.show(&service.Event{Policy: t.policy.info, Key: key, Decision: d}, atMillis)
	}
}

// Fenced implements [service.FenceTap].
func (t *policyTap) Fenced(info service.Info, at time.Time) { t.hub.Fenced(info, at) }

// show puts a denial where people look.
func (h *Hub) show(e *service.Event, at int64) {
	h.denials.put(func(d *denial) {
		d.at, d.policy, d.lane, d.decision = at, e.Policy.Name, lane(e), e.Decision
		d.key = keep(d.key[:0], e.Key)
	})
	h.feed.offer(e, at)
}

// lane is the axis that denied, empty for what is no Admit.
func lane(e *service.Event) string {
	if e.Admit && e.Axis == "" {
		return "policy"
	}
	return e.Axis
}

// Fenced implements [service.FenceTap].
func (h *Hub) Fenced(info service.Info, at time.Time) {
	h.fences.put(func(f *Fence) { *f = Fence{At: at.UnixMilli(), Guard: info.Name} })
	if p := h.known(info); p != nil {
		p.fences.Add(1)
	}
}

// known is what is known of a policy, which may be new. It is nil if there are too many.
func (h *Hub) known(info service.Info) *policy {
	if p := h.policies.Load().find(info.Name); p != nil {
		return p
	}
	return h.learn(info)
}

// learn adds a policy that the source did not have, or that decides before there is one.
func (h *Hub) learn(info service.Info) *policy {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.publish()
	known := h.policies.Load().byName
	if p := known[info.Name]; p != nil || len(known) >= maxPolicies {
		return p
	}
	p := newPolicy(info)
	next := maps.Clone(known)
	next[info.Name] = p
	h.policies.Store(newDirectory(next))
	return p
}

// shares are the latest that were read. To read those of many tenants keeps their requests waiting, so it is not done
// more often than once in keepShares, however many look.
type shares struct {
	mu     sync.Mutex
	at     time.Time
	latest []service.ShareState
}

const (
	keepShares  = time.Second
	manyTenants = 1000
)

// forget drops what was read of a source that has gone.
func (s *shares) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest = nil
}

func (s *shares) of(source Source) []service.ShareState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest != nil && time.Since(s.at) < keepShares {
		return s.latest
	}
	s.latest = nil
	now := source.Shares()
	tenants := 0
	for i := range now {
		tenants += len(now[i].Stats.Tenants)
	}
	if tenants > manyTenants {
		s.at, s.latest = time.Now(), now
	}
	return now
}

// directory finds policies by name. It never changes.
type directory struct {
	byName map[string]*policy
	// quick has a policy where a few bytes of its name say, which is sooner looked at than a map. Policies whose names say
	// the same are found in the map.
	quick []*policy
}

func newDirectory(byName map[string]*policy) *directory {
	if byName == nil {
		byName = make(map[string]*policy)
	}
	size := 16
	for size < 4*len(byName) {
		size *= 2
	}
	d := &directory{byName: byName, quick: make([]*policy, size)}
	for name, p := range byName {
		d.quick[d.place(name)] = p
	}
	return d
}

func (d *directory) place(name string) int {
	place := len(name)
	if place > 0 {
		place += int(name[0]) + 7*int(name[len(name)/2]) + 31*int(name[len(name)-1])
	}
	return place & (len(d.quick) - 1)
}

func (d *directory) find(name string) *policy {
	if p := d.quick[d.place(name)]; p != nil && p.info.Name == name {
		return p
	}
	return d.byName[name]
}

// described is a policy with what its source says of it now.
type described struct {
	*policy

	info service.Info
}

// all are the policies in the order of the source, or by name for want of one.
func (h *Hub) all() []described {
	h.mu.Lock()
	h.publish()
	h.mu.Unlock()
	known := h.policies.Load().byName
	list := make([]described, 0, len(known))
	if source := h.source.Load(); source != nil {
		for _, info := range (*source).Policies() {
			if p := known[info.Name]; p != nil {
				list = append(list, described{p, info})
			}
		}
		return list
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		list = append(list, described{known[name], known[name].info})
	}
	return list
}

func (h *Hub) nowMillis() int64 { return h.config.Now().UnixMilli() }
