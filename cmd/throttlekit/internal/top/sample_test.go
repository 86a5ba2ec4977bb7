package top

import (
	"fmt"
	"slices"
	"strings"

	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
)

// noon is when the sample was made: 23 seconds into a window.
const noon = 1_795_003_223_000

// sample is a server that has something to show in every view.
func sample() *monitor.Snapshot {
	analytics := func(allowed, denied int64, requested, deniedKeys []monitor.KeyCount) monitor.Analytics {
		return monitor.Analytics{
			WindowStartedAt: noon - 23_000, WindowMs: 60_000, Allowed: allowed, Denied: denied, Total: allowed + denied,
			DenyRate: float64(denied) / float64(max(1, allowed+denied)), TopRequested: requested, TopDenied: deniedKeys,
			Units: float64(allowed),
		}
	}
	keys := func(pairs ...any) (list []monitor.KeyCount) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, monitor.KeyCount{Key: pairs[i].(string), Count: int64(pairs[i+1].(int))})
		}
		return list
	}
	s := &monitor.Snapshot{
		Meta:   monitor.Meta{GeneratedAt: noon, WindowMs: 60_000, Mode: "process", LensVersion: monitor.LensVersion, NodeID: "10.0.0.7:50051"},
		Health: &monitor.Health{Backend: "memory", FailMode: service.FailOpen},
		Store:  &monitor.StoreHealth{Operations: 48_210, AvgMs: 0.004, Answering: true},
	}
	api := monitor.Policy{
		Name: "api", Kind: monitor.KindLimiter, Strategy: "tokenBucket", PolicyKind: "plain", FailMode: service.FailOpen, Limit: 50,
		Analytics: analytics(41_200, 1_310, keys("acme", 9_120, "globex", 7_044), keys("acme", 811, "\u521d\u97f3\u30df\u30af", 96, "initech", 41)),
		Latency:   &monitor.Latency{AvgMs: 0.004, P50Ms: 0.003, P99Ms: 0.021, MaxMs: 0.094, N: 256},
		Forecast:  &monitor.Forecast{Key: "acme", SpendableNow: 0, NextReplenishAt: noon + 84, FullAt: noon + 5_000},
	}
	login := monitor.Policy{
		Name: "login", Kind: monitor.KindLimiter, Strategy: "slidingWindowLog", PolicyKind: "plain", FailMode: service.FailClosed, Limit: 5,
		Analytics: analytics(212, 37, keys("mallory", 40), keys("mallory", 35, "trudy", 2)),
		Latency:   &monitor.Latency{AvgMs: 1.4, P50Ms: 0.9, P99Ms: 31, MaxMs: 48, N: 249},
		Forecast:  &monitor.Forecast{Key: "mallory", SpendableNow: 0, NextReplenishAt: noon + 811_000, FullAt: noon + 872_000},
	}
	daily := monitor.Policy{
		Name: "daily", Kind: monitor.KindLimiter, Strategy: "quota", PolicyKind: "plain", FailMode: service.FailOpen,
		Analytics: analytics(0, 0, nil, nil), ForecastUnavailable: "idle",
	}
	tokens := monitor.Policy{
		Name: "tokens", Kind: monitor.KindLimiter, PolicyKind: "tokenBudget", FailMode: service.FailOpen, Limit: 100_000,
		Analytics: analytics(940, 12, keys("team-a", 500), keys("team-b", 12)), ForecastUnavailable: "unsupported",
	}
	tokens.Analytics.Units = 612_400
	lent := monitor.Policy{
		Name: "shared", Kind: monitor.KindLimiter, Strategy: "fixedWindow", PolicyKind: "federated", FailMode: service.FailOpen, Limit: 60_000,
		Analytics: analytics(130, 0, keys("edge-1", 80), nil), ForecastUnavailable: "async",
	}
	lent.Analytics.Leases = &monitor.Leases{Granted: 120, Units: 1_920}
	tenants := monitor.Policy{
		Name: "tenants", Kind: monitor.KindLimiter, PolicyKind: "fairEscrow", FailMode: service.FailOpen, Limit: 1_000,
		Analytics: analytics(612, 44, keys("acme", 450), keys("acme", 44)), ForecastUnavailable: "unsupported",
	}
	llm := monitor.Policy{
		Name: "llm", Kind: monitor.KindAdmitter, PolicyKind: "concurrency", FailMode: service.FailOpen, Limit: 48,
		Analytics: analytics(2_204, 190, keys("acme", 1_100), keys("acme", 120, "globex", 70)),
		Latency:   &monitor.Latency{AvgMs: 0.02, P50Ms: 0.01, P99Ms: 0.2, MaxMs: 1.1, N: 256},
	}
	llm.Analytics.Units = 88_400
	llm.Analytics.DeniedByLane = &monitor.Lanes[int64]{Rate: 40, Concurrency: 130, Cost: 20}
	s.Policies = []monitor.Policy{api, login, daily, tokens, lent, tenants, llm}
	s.Guards = []monitor.Guard{
		{Name: "llm", Limit: 48, InFlight: 41, RTTNoLoad: 212, LastRTT: 304, Waiting: 3},
		{Name: "jobs", Limit: 12, InFlight: 8, RTTNoLoad: 3.1, LastRTT: 3.4, Share: new(8), LGlobal: new(24), Nodes: new(3), Fenced: new(false)},
	}
	share := monitor.ShareValue{
		WindowStart: new(int64(noon - 23_000)), Limit: 1_000, EffectiveLimit: 1_000, Pool: 388, TotalUsed: 612, Unit: "units (cost)", TenantCount: 12,
	}
	for i := range 12 {
		share.Tenants = append(share.Tenants, monitor.Tenant{Tenant: fmt.Sprintf("tenant-%02d", i), Weight: 1, Used: float64(15 + i)})
	}
	share.Tenants[0] = monitor.Tenant{Tenant: "acme", Weight: 3, Used: 386}
	s.Stats = []monitor.Share{{Name: "tenants", Kind: "wfe", Value: share}}
	for i := range 40 {
		d := monitor.Denial{At: noon - 40_000 + int64(i)*997, Policy: "api", Key: "acme", Decision: monitor.Decision{Limit: 50, RetryAfterMs: 84}}
		switch i % 4 {
		case 1:
			d.Policy, d.Key, d.Decision.RetryAfterMs = "login", "mallory", 811_000
		case 2:
			d.Policy, d.Key, d.Lane, d.Decision.RetryAfterMs = "llm", "globex", "concurrency", 0
		case 3:
			d.Policy, d.Key, d.Decision.RetryAfterMs = "tokens", "team-b", 37_000
		}
		s.RecentDenials = append(s.RecentDenials, d)
	}
	s.RecentFences = []monitor.Fence{{At: noon - 8_000_000, Guard: "jobs"}}
	return s
}

// hostile is the sample with names that want to break the screen.
func hostile() *monitor.Snapshot {
	s := sample()
	names := []string{
		"\x1b[2J\x1b[31mred", "line\nbreak\r\ttab", strings.Repeat("\u521d\u97f3\u30df\u30af", 3), "שלום עולם", "مرحبا", "a\u202egnp.exe", "e\u0301\u0301\u0301\u0301",
		"👩\u200d👩\u200d👧 family", "🇩🇪🇫🇷", "👍🏽", "", " ", "\xff\xfe", "\u200b\u200b", "한국어 각각", "नमस्ते", "สวัสดีำ", "\u0600\u0d4ea",
		string(make([]byte, 4096)), "<b>bold</b>", "\x9b31m", "ﷺ",
	}
	pick := func(i int) string { return names[i%len(names)] }
	s.Meta.NodeID = pick(0)
	s.Health.Backend = pick(1)
	for i := range s.Policies {
		p := &s.Policies[i]
		p.Name, p.Strategy = pick(i+2), pick(i+3)
		for k := range p.Analytics.TopDenied {
			p.Analytics.TopDenied[k].Key = pick(i + k + 5)
		}
		if len(p.Analytics.TopRequested) > 0 {
			p.Analytics.TopRequested[0].Key = pick(i + 9)
		}
		if p.Forecast != nil {
			p.Forecast.Key = pick(i + 11)
		}
	}
	for i := range s.Guards {
		s.Guards[i].Name = pick(i + 4)
	}
	for i := range s.Stats[0].Value.Tenants {
		s.Stats[0].Value.Tenants[i].Tenant = pick(i)
	}
	for i := range s.RecentDenials {
		s.RecentDenials[i].Policy, s.RecentDenials[i].Key = pick(i), pick(i+7)
	}
	s.RecentFences[0].Guard = pick(3)
	return s
}

// strange is the sample with numbers that no server should send.
func strange() *monitor.Snapshot {
	s := sample()
	s.Meta.WindowMs, s.Meta.GeneratedAt = 0, -5
	for i := range s.Policies {
		p := &s.Policies[i]
		p.Limit = -1
		p.Analytics.Denied, p.Analytics.Allowed, p.Analytics.DenyRate, p.Analytics.Units = -4, 1<<62, -7, -1e300
		if p.Forecast != nil {
			*p.Forecast = monitor.Forecast{SpendableNow: 1 << 62, NextReplenishAt: 1 << 62, FullAt: -1 << 62}
		}
		if p.Latency != nil {
			*p.Latency = monitor.Latency{AvgMs: -1, P50Ms: 1e300, P99Ms: -1e300, MaxMs: 1e300, N: 1}
		}
	}
	for i := range s.Guards {
		s.Guards[i].Limit, s.Guards[i].InFlight, s.Guards[i].Waiting = -3, 1<<40, -1
	}
	v := &s.Stats[0].Value
	v.EffectiveLimit, v.TotalUsed, v.TenantCount = -1, 1e300, -4
	for i := range v.Tenants {
		v.Tenants[i].Weight, v.Tenants[i].Used = -1, 1e300
	}
	for i := range s.RecentDenials {
		s.RecentDenials[i].At = -1 << 62
		s.RecentDenials[i].Decision = monitor.Decision{RetryAfterMs: 1 << 62, Remaining: -1 << 62}
	}
	return s
}

// past is a history of two minutes in which denials come and go.
func pastOf(s *monitor.Snapshot) *History {
	h := new(History)
	for i := range 30 {
		earlier := *s
		earlier.Meta.GeneratedAt -= int64(30-i) * 1000
		earlier.Policies = nil
		for k := range s.Policies {
			p := s.Policies[k]
			p.Analytics.Allowed = p.Analytics.Allowed * int64(i) / 30
			p.Analytics.Denied = p.Analytics.Denied * int64(i*i) / 900
			p.Analytics.Units *= float64(i) / 30
			if l := p.Analytics.Leases; l != nil {
				p.Analytics.Leases = &monitor.Leases{Granted: l.Granted * int64(i) / 30, Units: l.Units * float64(i) / 30}
			}
			earlier.Policies = append(earlier.Policies, p)
		}
		earlier.Guards = slices.Clone(s.Guards)
		for k := range earlier.Guards {
			earlier.Guards[k].InFlight = earlier.Guards[k].InFlight * (20 + i*7%11) / 30
		}
		h.Add(&earlier)
	}
	h.Add(s)
	return h
}
