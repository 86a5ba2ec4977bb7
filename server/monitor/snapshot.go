package monitor

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"slices"

	"github.com/throttlekit/throttlekit-go/service"
)

// LensVersion is the version of the document that a [Snapshot] marshals to. Documents of this version may gain keys.
const LensVersion = "0.3.0"

// The kinds of rows in a snapshot.
const (
	// KindLimiter is whatever checks, debits or lends.
	KindLimiter = "limiter"
	// KindAdmitter is what admits, and so has a guard.
	KindAdmitter = "admitter"
)

// Snapshot is what a hub knows at one moment. Its JSON is the document of the server specification, §3.3, with keys that are
// new here: policyKind, failMode, units, failModeDecisions, leases, waiting, tenantCount, failModeActivations, store and watch.
type Snapshot struct {
	Meta          Meta         `json:"meta"`
	Policies      []Policy     `json:"policies"`
	Guards        []Guard      `json:"guards"`
	Stats         []Share      `json:"stats"`
	CostRooms     []CostRoom   `json:"costRooms,omitempty"`
	RecentDenials []Denial     `json:"recentDenials"`
	RecentFences  []Fence      `json:"recentFences"`
	Health        *Health      `json:"health,omitempty"`
	Store         *StoreHealth `json:"store,omitempty"`
	Watch         Watch        `json:"watch"`
}

// Meta says what a snapshot covers and who made it.
type Meta struct {
	// GeneratedAt is when it was made, in epoch milliseconds.
	GeneratedAt int64 `json:"generatedAt"`
	// WindowMs is the width of a window.
	WindowMs int64 `json:"windowMs"`
	// Mode is "process": a snapshot covers one server.
	Mode string `json:"mode"`
	// LensVersion is the version of the document.
	LensVersion string `json:"lensVersion"`
	// NodeID is the server's name for itself.
	NodeID string `json:"nodeId,omitempty"`
}

// Policy is one row: limiters come first, then admitters, each in the order of the policy file.
type Policy struct {
	Name string `json:"name"`
	// Kind is KindLimiter or KindAdmitter.
	Kind string `json:"kind"`
	// Strategy is that of a limiter, empty for want of one.
	Strategy  string    `json:"strategy,omitempty"`
	Analytics Analytics `json:"analytics"`
	// Limit is that of the latest decision, 0 before the first.
	Limit int64 `json:"limit,omitempty"`
	// Latency is nil if no decision was timed.
	Latency *Latency `json:"latency,omitempty"`
	// Forecast is for the key denied most often, or else asked for most often. If it is nil for a limiter,
	// ForecastUnavailable says why: "async" if the state is not in memory, "idle" without traffic, or "unsupported".
	Forecast            *Forecast `json:"forecast,omitempty"`
	ForecastUnavailable string    `json:"forecastUnavailable,omitempty"`
	// PolicyKind is the kind as the policy file spells it, or "plain".
	PolicyKind string `json:"policyKind"`
	// FailMode is the policy's, or that of the service.
	FailMode service.FailMode `json:"failMode"`
}

// Analytics are the counters of the current window.
type Analytics struct {
	WindowStartedAt int64 `json:"windowStartedAt"`
	WindowMs        int64 `json:"windowMs"`
	// Allowed, Denied and Total count decisions, those of meters, guards and leases included.
	Allowed int64 `json:"allowed"`
	Denied  int64 `json:"denied"`
	Total   int64 `json:"total"`
	// DenyRate is Denied of Total, from 0 to 1.
	DenyRate     float64    `json:"denyRate"`
	TopRequested []KeyCount `json:"topRequested"`
	TopDenied    []KeyCount `json:"topDenied"`
	// DeniedByLane and TopDeniedByLane are what denied an admitter's requests; nil for limiters.
	DeniedByLane    *Lanes[int64]      `json:"deniedByLane,omitempty"`
	TopDeniedByLane *Lanes[[]KeyCount] `json:"topDeniedByLane,omitempty"`
	// Units is the cost of what was allowed: of a meter, the tokens that were booked.
	Units float64 `json:"units"`
	// FailModeDecisions is how many of Total the fail mode made.
	FailModeDecisions int64 `json:"failModeDecisions"`
	// Leases are those that were granted; nil if there were none.
	Leases *Leases `json:"leases,omitempty"`
}

// Leases are what was lent.
type Leases struct {
	Granted int64   `json:"granted"`
	Units   float64 `json:"units"`
}

// Forecast says what a key could spend.
type Forecast struct {
	Key             string `json:"key"`
	SpendableNow    int64  `json:"spendableNow"`
	NextReplenishAt int64  `json:"nextReplenishAt"`
	FullAt          int64  `json:"fullAt"`
}

// Guard is how one concurrency guard stands. The last four but Waiting are for guards that share a ceiling with a fleet.
type Guard struct {
	Name     string `json:"name"`
	Limit    int    `json:"limit"`
	InFlight int    `json:"inflight"`
	// RTTNoLoad and LastRTT are latencies in milliseconds, 0 before they are known.
	RTTNoLoad float64 `json:"rttNoload"`
	LastRTT   float64 `json:"lastRtt"`
	Share     *int    `json:"share,omitempty"`
	LGlobal   *int    `json:"lGlobal,omitempty"`
	Nodes     *int    `json:"nodes,omitempty"`
	Fenced    *bool   `json:"fenced,omitempty"`
	// Waiting is how many callers wait for a slot.
	Waiting int `json:"waiting"`
}

// Share is how the tenants of one policy stand.
type Share struct {
	Name string `json:"name"`
	// Kind is "wfe", weighted-fair escrow.
	Kind  string     `json:"kind"`
	Value ShareValue `json:"value"`
}

// ShareValue is the window that an escrow is in.
type ShareValue struct {
	// WindowStart is nil before the first check.
	WindowStart    *int64  `json:"windowStart"`
	Limit          float64 `json:"limit"`
	EffectiveLimit float64 `json:"effectiveLimit"`
	Pool           float64 `json:"pool"`
	TotalUsed      float64 `json:"totalUsed"`
	// Tenants are those that used most, at most 100, in the order of their first checks.
	Tenants []Tenant `json:"tenants"`
	// TenantCount is how many are active.
	TenantCount int    `json:"tenantCount"`
	Unit        string `json:"unit,omitempty"`
}

// Tenant is one of those who share.
type Tenant struct {
	Tenant string  `json:"tenant"`
	Weight float64 `json:"weight"`
	Used   float64 `json:"used"`
}

// Health is what the service stands on.
type Health struct {
	Backend  string           `json:"backend"`
	FailMode service.FailMode `json:"failMode"`
	// FailModeActivations is how many decisions the fail mode has made since the service began.
	FailModeActivations int64 `json:"failModeActivations"`
}

// Watch is how the stream of denials does.
type Watch struct {
	// Watchers is how many read it.
	Watchers int `json:"watchers"`
	// Dropped is how many events were left out since the hub was made, counted for each reader.
	Dropped int64 `json:"dropped"`
}

// maxTenants is how many tenants of a policy a snapshot shows.
const maxTenants = 100

// Snapshot tells what the hub knows. ctx bounds forecasts, which only ask memory.
func (h *Hub) Snapshot(ctx context.Context) Snapshot {
	now := h.nowMillis()
	s := Snapshot{
		Meta: Meta{
			GeneratedAt: now, WindowMs: h.width, Mode: "process", LensVersion: LensVersion, NodeID: h.config.Node,
		},
		Policies: []Policy{}, Guards: []Guard{}, Stats: []Share{}, RecentDenials: []Denial{}, RecentFences: []Fence{},
		Watch: Watch{Watchers: h.feed.watchers(), Dropped: h.feed.dropped.Load()},
	}
	var source Source
	if attached := h.source.Load(); attached != nil {
		source = *attached
		for _, g := range source.Guards() {
			s.Guards = append(s.Guards, guardOf(g))
		}
		shares := h.shares.of(source)
		for i := range shares {
			s.Stats = append(s.Stats, shareOf(&shares[i]))
		}
		s.CostRooms = h.rooms.look(shares, h.hasher, now)
	}
	guarded := make(map[string]bool, len(s.Guards))
	for _, g := range s.Guards {
		guarded[g.Name] = true
	}
	var admitters []Policy
	for _, p := range h.all() {
		row := h.row(ctx, p, guarded[p.info.Name], now, source)
		if row.Kind == KindAdmitter {
			admitters = append(admitters, row)
		} else {
			s.Policies = append(s.Policies, row)
		}
	}
	s.Policies = append(s.Policies, admitters...)
	h.denials.each(func(d *denial) {
		s.RecentDenials = append(s.RecentDenials, denialOf(d.at, d.policy, text(d.key), d.lane, d.decision))
	})
	h.fences.each(func(f *Fence) { s.RecentFences = append(s.RecentFences, *f) })
	if h.config.Backend != "" {
		s.Health = &Health{Backend: h.config.Backend, FailMode: h.config.FailMode}
		if source != nil {
			s.Health.FailModeActivations = source.FailModeCount()
		}
	}
	if store := h.store.Load(); store != nil {
		health := store.Health()
		s.Store = &health
	}
	return s
}

// row is one policy. A policy with a guard is an admitter, also before its first Admit.
func (h *Hub) row(ctx context.Context, p described, guarded bool, now int64, source Source) Policy {
	v, lanes := p.look(now, h.width), p.lookLanes(now, h.width)
	if lanes == nil && guarded {
		empty := Lanes[[]KeyCount]{Rate: []KeyCount{}, Concurrency: []KeyCount{}, Cost: []KeyCount{}, Policy: []KeyCount{}}
		lanes = &lanesSeen{keys: empty}
	}
	row := Policy{
		Name: p.info.Name, Kind: KindLimiter, Strategy: p.info.Strategy, PolicyKind: p.info.Kind,
		FailMode: cmp.Or(p.info.FailMode, h.config.FailMode),
		Limit:    max(0, p.limit.Load()), Latency: p.timings.summary(),
		Analytics: Analytics{
			WindowStartedAt: beginOf(now, h.width), WindowMs: h.width,
			Allowed: v.window.allowed, Denied: v.window.denied, Total: v.window.allowed + v.window.denied,
			TopRequested: v.requested, TopDenied: v.denied,
			Units: finite(v.window.units), FailModeDecisions: v.window.failMode,
		},
	}
	if total := row.Analytics.Total; total > 0 {
		row.Analytics.DenyRate = float64(v.window.denied) / float64(total)
	}
	if v.window.leases > 0 {
		row.Analytics.Leases = &Leases{Granted: v.window.leases, Units: finite(v.window.leased)}
	}
	if lanes != nil {
		row.Kind, row.Strategy = KindAdmitter, ""
		row.Analytics.DeniedByLane, row.Analytics.TopDeniedByLane = &lanes.window, &lanes.keys
	} else {
		row.Forecast, row.ForecastUnavailable = h.forecast(ctx, source, row)
	}
	return row
}

// forecast looks ahead for the key that matters most, or says why it cannot.
func (h *Hub) forecast(ctx context.Context, source Source, row Policy) (ahead *Forecast, unavailable string) {
	if h.config.Backend != "memory" {
		return nil, "async"
	}
	rows := row.Analytics.TopDenied
	if len(rows) == 0 {
		rows = row.Analytics.TopRequested
	}
	if len(rows) == 0 {
		return nil, "idle"
	}
	f, ok := source.(forecaster)
	if !ok || len(rows[0].Key) > keptKey { // a key that was cut is another key
		return nil, "unsupported"
	}
	got, err := f.Forecast(ctx, row.Name, rows[0].Key, 1)
	if err != nil {
		return nil, "unsupported"
	}
	return &Forecast{
		Key: rows[0].Key, SpendableNow: got.SpendableNow, NextReplenishAt: got.NextReplenishAtMillis, FullAt: got.FullAtMillis,
	}, ""
}

func guardOf(g service.GuardState) Guard {
	guard := Guard{
		Name: g.Policy, Limit: g.Limit, InFlight: g.InFlight, Waiting: g.Waiting, RTTNoLoad: millis(g.NoLoad), LastRTT: millis(g.Last),
	}
	if f := g.Fleet; f != nil {
		guard.Share, guard.LGlobal, guard.Nodes, guard.Fenced = &f.Share, &f.Ceiling, &f.Nodes, &f.Fenced
	}
	return guard
}

func shareOf(s *service.ShareState) Share {
	value := ShareValue{
		Limit: finite(s.Stats.Limit), EffectiveLimit: finite(s.Stats.EffectiveLimit), Pool: finite(s.Stats.Pool),
		TotalUsed: finite(s.Stats.TotalUsed), Tenants: []Tenant{}, TenantCount: len(s.Stats.Tenants), Unit: s.Unit,
	}
	if start := s.Stats.WindowStartMillis; start > 0 {
		value.WindowStart = &start
	}
	for _, t := range s.Stats.Tenants {
		value.Tenants = append(value.Tenants, Tenant{Tenant: t.Tenant, Weight: finite(t.Weight), Used: finite(t.Used)})
	}
	value.Tenants = mostUsed(value.Tenants)
	for i := range value.Tenants {
		value.Tenants[i].Tenant = shown(value.Tenants[i].Tenant)
	}
	return Share{Name: s.Policy, Kind: "wfe", Value: value}
}

// mostUsed are the tenants to show, in the order that they have. Among equals the first ones are shown.
func mostUsed(tenants []Tenant) []Tenant {
	if len(tenants) <= maxTenants {
		return tenants
	}
	order := make([]int, len(tenants))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(tenants[b].Used, tenants[a].Used) })
	order = order[:maxTenants]
	slices.Sort(order)
	most := make([]Tenant, maxTenants)
	for i, place := range order {
		most[i] = tenants[place]
	}
	return most
}

// finite is a number that JSON can hold.
func finite(x float64) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	return x
}

// JSON is the document of a snapshot. Characters that mean something to HTML are escaped.
func (s Snapshot) JSON() ([]byte, error) { return json.Marshal(s) }
