package monitor

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

const (
	// minSpan is over how many milliseconds a rate is told at least.
	minSpan = 1000
	// maxRoomRows is how many tenants of a cost room are shown. At least as many are tracked.
	maxRoomRows = 12
	// maxTracked and maxPoints bound what a policy may ask for in costRoomMaxKeys and costRoomRingSize: a room takes 1 MB at most.
	maxTracked, maxPoints = 1024, 64
)

// CostRoom says how fast the tenants of one policy use up what they share, and when it will be gone if they go on like
// this (server specification §3.3 and §3.4).
type CostRoom struct {
	Policy string `json:"policy"`
	// WindowStart is nil before the first check.
	WindowStart    *int64  `json:"windowStart"`
	WindowMs       float64 `json:"windowMs"`
	Limit          float64 `json:"limit"`
	EffectiveLimit float64 `json:"effectiveLimit"`
	Pool           float64 `json:"pool"`
	TotalUsed      float64 `json:"totalUsed"`
	// Unit is what is counted.
	Unit string `json:"unit"`
	// Scope is "single-node": what this server granted.
	Scope string `json:"scope"`
	// FairShareReliable is false: guarantees are those of one moment, and shrink as tenants come.
	FairShareReliable bool `json:"fairShareReliable"`
	// Enforced is true: the shares are what decides, not only what is shown.
	Enforced bool `json:"enforced"`
	// ActiveTenants is how many share the window.
	ActiveTenants int `json:"activeTenants"`
	// PoolEtaToExhaustAt is when the pool will be empty, in epoch milliseconds; nil if that is not within the window.
	PoolEtaToExhaustAt *int64 `json:"poolEtaToExhaustAt,omitempty"`
	// Tenants are those that used most, at most 12, most first.
	Tenants []RoomTenant `json:"tenants"`
}

// RoomTenant is one tenant of a cost room.
type RoomTenant struct {
	Tenant string  `json:"tenant"`
	Weight float64 `json:"weight"`
	Used   float64 `json:"used"`
	// Guaranteed is the tenant's part of the budget by weight, rounded down, and Borrowed what it used beyond.
	Guaranteed float64 `json:"guaranteed"`
	Borrowed   float64 `json:"borrowed"`
	// BurnPerSec is how many units a second it used lately; nil if that is not known.
	BurnPerSec *float64 `json:"burnPerSec"`
	// EtaToExhaustAt is when its guarantee will be used up, in epoch milliseconds; nil if it is or nothing is being used.
	EtaToExhaustAt *int64 `json:"etaToExhaustAt"`
	// EtaCappedByWindow says that the window will be over by then.
	EtaCappedByWindow bool `json:"etaCappedByWindow"`
	// BurnReason is why BurnPerSec is nil, "warming" or "window-too-short", or "idle" if it is 0. Empty otherwise.
	BurnReason string `json:"burnReason,omitempty"`
}

// costRooms is what a hub remembers of shares between snapshots, by policy.
type costRooms struct {
	mu    sync.Mutex
	rooms map[string]*costRoom
}

// look samples the shares at an instant and tells what is to be shown of them. What is no longer among them is forgotten.
func (r *costRooms) look(shares []service.ShareState, h hasher, now int64) []CostRoom {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []CostRoom
	next := make(map[string]*costRoom, len(r.rooms))
	for i := range shares {
		s := &shares[i]
		if !s.Shown {
			continue
		}
		room := r.rooms[s.Policy]
		if room == nil {
			room = new(costRoom)
		}
		next[s.Policy] = room
		list = append(list, room.look(s, h, now))
	}
	r.rooms = next
	return list
}

// costRoom remembers what the tenants of one policy had used.
type costRoom struct {
	window  int64 // start of the one that all of it is from; 0 before the first
	sampled int64 // when, last
	burns   map[uint64]*burn
}

// burn is how the use of one tenant went on, oldest first. Tenants are told by the hash of their name, which may be long.
type burn struct {
	used   float64 // in the latest sample
	points []burnPoint
}

// burnPoint is what was used between the sample before and this one.
type burnPoint struct {
	at    int64
	added float64
}

// share is one tenant, with numbers that are finite and not negative.
type share struct {
	name         string
	hash         uint64
	weight, used float64
}

func (c *costRoom) look(s *service.ShareState, h hasher, now int64) CostRoom {
	tenants, weights := sharesOf(s, h)
	c.sample(s, tenants, now)
	width := amount(millis(s.Window))
	room := CostRoom{
		Policy: s.Policy, WindowMs: width, Limit: amount(s.Stats.Limit), EffectiveLimit: amount(s.Stats.EffectiveLimit),
		Pool: amount(s.Stats.Pool), TotalUsed: amount(s.Stats.TotalUsed), Unit: s.Unit, Scope: "single-node", Enforced: true,
		ActiveTenants: len(tenants), Tenants: []RoomTenant{},
	}
	end := math.Inf(1)
	if start := s.Stats.WindowStartMillis; start > 0 {
		room.WindowStart, end = &start, float64(start)+width
	}
	var all float64
	for _, t := range tenants[:min(len(tenants), tracked(s))] {
		rate, _ := c.burns[t.hash].rate()
		all += rate
	}
	if eta := float64(now) + float64(room.Pool/all*1000); all > 0 && room.Pool > 0 && eta <= end {
		room.PoolEtaToExhaustAt = instant(eta)
	}
	for _, t := range tenants[:min(len(tenants), maxRoomRows)] {
		row := RoomTenant{Tenant: shown(t.name), Weight: t.weight, Used: t.used}
		if weights > 0 {
			row.Guaranteed = math.Floor(amount(t.weight * room.EffectiveLimit / weights))
		}
		row.Borrowed = max(0, t.used-row.Guaranteed)
		rate, known := c.burns[t.hash].rate()
		switch {
		case !known && width < 1.3*minSpan:
			row.BurnReason = "window-too-short"
		case !known:
			row.BurnReason = "warming"
		case rate == 0:
			row.BurnPerSec, row.BurnReason = &rate, "idle"
		default:
			row.BurnPerSec = &rate
			if t.used < row.Guaranteed {
				eta := float64(now) + float64((row.Guaranteed-t.used)/rate*1000)
				row.EtaToExhaustAt, row.EtaCappedByWindow = instant(eta), eta > end
			}
		}
		room.Tenants = append(room.Tenants, row)
	}
	return room
}

// sharesOf are the tenants that have a name, those that used most first, and the sum of their weights.
func sharesOf(s *service.ShareState, h hasher) (tenants []share, weights float64) {
	tenants = make([]share, 0, len(s.Stats.Tenants))
	for _, t := range s.Stats.Tenants {
		if strings.TrimSpace(t.Tenant) == "" {
			continue
		}
		tenants = append(tenants, share{name: t.Tenant, weight: amount(t.Weight), used: amount(t.Used)})
		weights += amount(t.Weight)
	}
	slices.SortStableFunc(tenants, func(a, b share) int { return cmp.Compare(b.used, a.used) })
	for i := range tenants[:min(len(tenants), tracked(s))] {
		tenants[i].hash = h.hash(tenants[i].name)
	}
	return tenants, weights
}

// tracked is how many tenants the room of a policy keeps track of.
func tracked(s *service.ShareState) int { return min(max(s.MaxTenants, maxRoomRows), maxTracked) }

// sample notes what was used since the sample before. A window that begins forgets all before it, as does one that ends
// and a clock that was put back, from which nothing can be told.
//
// Whoever reads often, or many who read at once, must not fill the points with a time too short to tell a rate from. So
// points keep such a distance that all of them together span minSpan.
func (c *costRoom) sample(s *service.ShareState, tenants []share, now int64) {
	window := s.Stats.WindowStartMillis
	if window <= 0 {
		return
	}
	points := min(max(s.Points, 2), maxPoints)
	since := now - c.sampled
	switch gap := int64(math.Ceil(minSpan / float64(points-1))); {
	case window != c.window || since < -minSpan:
		c.burns = nil
	case since < gap:
		return
	}
	c.window, c.sampled = window, now
	next := make(map[uint64]*burn, min(len(tenants), tracked(s)))
	for _, t := range tenants[:min(len(tenants), tracked(s))] {
		b := c.burns[t.hash]
		if b == nil {
			b = new(burn)
		}
		if over := len(b.points) - points + 1; over > 0 {
			b.points = slices.Delete(b.points, 0, over)
		}
		b.points = append(b.points, burnPoint{at: now, added: max(0, t.used-b.used)})
		b.used = t.used
		next[t.hash] = b
	}
	c.burns = next
}

// rate is how many units a second were used between the oldest point and the newest one. Of a tenant that is not tracked it
// is not known.
func (b *burn) rate() (perSecond float64, known bool) {
	if b == nil || len(b.points) < 2 {
		return 0, false
	}
	span := b.points[len(b.points)-1].at - b.points[0].at
	if span < minSpan {
		return 0, false
	}
	var added float64
	for _, p := range b.points[1:] {
		added += p.added
	}
	return amount(added / (float64(span) / 1000)), true
}

// amount is a number that is finite and not negative.
func amount(x float64) float64 { return max(0, finite(x)) }

// instant is a time in epoch milliseconds, rounded up, as an integer that every reader can hold.
func instant(at float64) *int64 {
	whole := int64(min(math.Ceil(at), throttlekit.MaxSafe))
	return &whole
}
