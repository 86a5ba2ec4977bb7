package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/fair"
	"github.com/throttlekit/throttlekit-go/service"
)

var update = flag.Bool("update", false, "write the golden document anew")

// facts is a source that says what a test wants.
type facts struct {
	policies []service.Info
	guards   []service.GuardState
	shares   []service.ShareState
	forecast func(policy, key string) (throttlekit.Forecast, error)
}

func (f *facts) Policies() []service.Info     { return f.policies }
func (f *facts) Guards() []service.GuardState { return f.guards }
func (f *facts) Shares() []service.ShareState { return f.shares }
func (*facts) FailModeCount() int64           { return 3 }

func (f *facts) Forecast(_ context.Context, policy, key string, _ float64) (throttlekit.Forecast, error) {
	return f.forecast(policy, key)
}

// The document that existing dashboards decode, with one of everything.
func TestGoldenSnapshot(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{Node: "0.0.0.0:50051", Backend: "memory", FailMode: service.FailClosed})
	source := &facts{
		policies: []service.Info{
			{Name: "unified", Kind: "concurrency", Strategy: "gcra", Limit: 5},
			{Name: "api", Kind: "plain", Strategy: "gcra", Limit: 5, FailMode: service.FailOpen},
			{Name: "idle", Kind: "plain", Strategy: "fixedWindow"},
			{Name: "tokens", Kind: "tokenBudget"},
			{Name: "fleet", Kind: "distributedConcurrency"},
			{Name: "tenants", Kind: "fairEscrow"},
			{Name: "fresh", Kind: "fairEscrow"},
		},
		guards: []service.GuardState{
			{Policy: "unified", Limit: 8, InFlight: 3, Waiting: 1, NoLoad: 1500 * time.Microsecond, Last: 2 * time.Millisecond},
			{Policy: "fleet", Limit: 4, Fleet: &service.FleetState{Share: 0, Ceiling: 12, Nodes: 3, Fenced: true}},
		},
		shares: []service.ShareState{
			shownRoom("tenants", fair.Stats{
				WindowStartMillis: epoch, Limit: 4, EffectiveLimit: 4, TotalUsed: 3, Pool: 1,
				Tenants: []fair.Tenant{{Tenant: "vip", Weight: 3, Used: 1}, {Tenant: "free", Weight: 1, Used: 1}},
			}),
			{Policy: "fresh", Shown: true, Window: time.Second, Stats: fair.Stats{Limit: 4, EffectiveLimit: 4, Pool: 4}},
			{Policy: "hidden", Window: time.Minute, Stats: fair.Stats{WindowStartMillis: epoch, Limit: 4, EffectiveLimit: 4, Pool: 4}},
		},
		forecast: func(policy, _ string) (throttlekit.Forecast, error) {
			if policy == "tokens" {
				return throttlekit.Forecast{}, throttlekit.ErrUnsupported
			}
			return throttlekit.Forecast{SpendableNow: 2, NextReplenishAtMillis: epoch + 1, FullAtMillis: epoch + 2}, nil
		},
	}
	if err := h.Attach(source); err != nil {
		t.Fatal(err)
	}
	tell := func(name, key string, allowed bool, change func(*service.Event)) {
		e := c.event(key, allowed)
		e.Policy.Name = name
		change(&e)
		h.Decided(e)
	}
	same := func(*service.Event) {}
	for range 3 {
		tell("api", "user:1", true, func(e *service.Event) { e.Elapsed = 250 * time.Microsecond })
	}
	tell("api", "user:<2>", false, func(e *service.Event) {
		e.Decision.ResetAtMillis, e.FailMode, e.Elapsed = epoch+9, service.FailOpen, time.Millisecond
	})
	tell("api", "lender", true, func(e *service.Event) { e.Lease, e.Cost = true, 30 })
	tell("tokens", "me", true, func(e *service.Event) { e.Cost, e.Decision.Limit = 1234, 0 })
	tell("unified", "user:1", true, func(e *service.Event) { e.Admit = true })
	tell("unified", "user:1", false, func(e *service.Event) { e.Admit, e.Axis = true, "concurrency" })
	tell("tenants", "vip", true, same)
	h.Fenced(service.Info{Name: "fleet"}, c.Now())
	h.Snapshot(t.Context()) // from which cost rooms know what was used until then
	c.Advance(1234 * time.Millisecond)
	source.shares[0].Stats.Tenants[0].Used = 2

	text, err := h.Snapshot(t.Context()).JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := json.Indent(&got, text, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	const golden = "testdata/snapshot.json"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("differs from %s, which -update writes anew; only do so if readers of the document can bear it:\n%s", golden, &got)
	}
}

// referenceKeys are the keys of the document as the specification has them (server specification, §3.3); "?" marks those that
// may be missing, "[]" lists.
const referenceKeys = `meta meta.generatedAt meta.windowMs meta.mode meta.lensVersion meta.nodeId?
policies[] policies[].name policies[].kind policies[].strategy? policies[].limit?
policies[].analytics policies[].analytics.windowStartedAt policies[].analytics.windowMs policies[].analytics.allowed
policies[].analytics.denied policies[].analytics.total policies[].analytics.denyRate
policies[].analytics.topRequested[] policies[].analytics.topRequested[].key policies[].analytics.topRequested[].count
policies[].analytics.topDenied[] policies[].analytics.topDenied[].key policies[].analytics.topDenied[].count
policies[].analytics.deniedByLane? policies[].analytics.deniedByLane.rate policies[].analytics.deniedByLane.concurrency
policies[].analytics.deniedByLane.cost policies[].analytics.deniedByLane.policy
policies[].analytics.topDeniedByLane? policies[].analytics.topDeniedByLane.rate[] policies[].analytics.topDeniedByLane.concurrency[]
policies[].analytics.topDeniedByLane.cost[] policies[].analytics.topDeniedByLane.policy[]
policies[].latency? policies[].latency.avgMs policies[].latency.p50Ms policies[].latency.p99Ms policies[].latency.maxMs policies[].latency.n
policies[].forecast? policies[].forecast.key policies[].forecast.spendableNow policies[].forecast.nextReplenishAt policies[].forecast.fullAt
policies[].forecastUnavailable?
guards[] guards[].name guards[].limit guards[].inflight guards[].rttNoload guards[].lastRtt guards[].share? guards[].lGlobal? guards[].nodes?
guards[].fenced?
stats[] stats[].name stats[].kind stats[].value stats[].value.windowStart stats[].value.limit stats[].value.effectiveLimit stats[].value.pool
stats[].value.totalUsed stats[].value.tenants[] stats[].value.tenants[].tenant stats[].value.tenants[].weight stats[].value.tenants[].used
recentDenials[] recentDenials[].at recentDenials[].policy recentDenials[].key recentDenials[].allowed recentDenials[].decision
recentDenials[].decision.allowed recentDenials[].decision.limit recentDenials[].decision.remaining recentDenials[].decision.resetAt
recentDenials[].decision.retryAfterMs recentDenials[].lane?
recentFences[] recentFences[].at recentFences[].guard
health? health.backend health.failMode
costRooms[] costRooms[].policy costRooms[].windowStart costRooms[].windowMs costRooms[].limit costRooms[].effectiveLimit costRooms[].pool
costRooms[].totalUsed costRooms[].unit costRooms[].scope costRooms[].fairShareReliable costRooms[].enforced costRooms[].activeTenants
costRooms[].poolEtaToExhaustAt? costRooms[].tenants[] costRooms[].tenants[].tenant costRooms[].tenants[].weight costRooms[].tenants[].used
costRooms[].tenants[].guaranteed costRooms[].tenants[].borrowed costRooms[].tenants[].burnPerSec costRooms[].tenants[].etaToExhaustAt
costRooms[].tenants[].etaCappedByWindow costRooms[].tenants[].burnReason?`

// The golden document has every key that the specification names, each where its parent is, and lists are never null.
func TestGoldenSnapshotHasTheKeysOfTheSpecification(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/snapshot.json")
	if err != nil {
		t.Fatal(err)
	}
	var document any
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	for path := range strings.FieldsSeq(referenceKeys) {
		found := 0
		var walk func(value any, steps []string, where string)
		walk = func(value any, steps []string, where string) {
			if len(steps) == 0 {
				found++
				return
			}
			object, ok := value.(map[string]any)
			if !ok {
				t.Errorf("%s: %s is no object", path, where)
				return
			}
			step := strings.TrimSuffix(steps[0], "?")
			name, list := strings.CutSuffix(step, "[]")
			next, has := object[name]
			if !has {
				// Optional itself, or below something that is.
				if !strings.HasSuffix(steps[0], "?") && !optional(path, len(steps)) {
					t.Errorf("%s: not at %s", path, where)
				}
				return
			}
			if !list {
				walk(next, steps[1:], where+"."+name)
				return
			}
			items, ok := next.([]any)
			if !ok {
				t.Errorf("%s: %s.%s is %v, not a list", path, where, name, next)
			}
			for _, item := range items {
				walk(item, steps[1:], where+"."+name)
			}
			if len(steps) == 1 {
				found++
			}
		}
		walk(document, strings.Split(path, "."), "")
		if found == 0 {
			t.Errorf("%s: nowhere", path)
		}
	}
}

// optional says whether the step of a path that is so many steps from its end is one that may be missing.
func optional(path string, fromEnd int) bool {
	steps := strings.Split(path, ".")
	prefix := strings.Join(steps[:len(steps)-fromEnd+1], ".")
	return strings.Contains(" "+strings.Join(strings.Fields(referenceKeys), " ")+" ", " "+prefix+"? ")
}

func TestForecast(t *testing.T) {
	t.Parallel()
	c := newClock()
	for _, test := range []struct {
		backend string
		keys    []string // denied; "+k" is allowed
		err     error
		key     string
		why     string
	}{
		{"memory", []string{"+a", "+a", "b"}, nil, "b", ""},
		{"memory", []string{"+a", "+b", "+b"}, nil, "b", ""},
		{"memory", nil, nil, "", "idle"},
		{"memory", []string{"b"}, throttlekit.ErrUnsupported, "", "unsupported"},
		{"memory", []string{"b"}, throttlekit.ErrClosed, "", "unsupported"},
		{"memory", []string{strings.Repeat("k", 200)}, nil, "", "unsupported"},
		{"redis", []string{"b"}, nil, "", "async"},
		{"", []string{"b"}, nil, "", "async"},
	} {
		h := hubAt(t, c, Config{Backend: test.backend})
		if err := h.Attach(&facts{
			policies: []service.Info{{Name: "p", Kind: "plain"}},
			forecast: func(string, string) (throttlekit.Forecast, error) {
				return throttlekit.Forecast{SpendableNow: 9}, test.err
			},
		}); err != nil {
			t.Fatal(err)
		}
		for _, key := range test.keys {
			name, allowed := strings.CutPrefix(key, "+")
			h.Decided(c.event(name, allowed))
		}
		got := one(t, h)
		key := ""
		if got.Forecast != nil {
			key = got.Forecast.Key
		}
		if key != test.key || got.ForecastUnavailable != test.why {
			t.Errorf("%+v: got %q, %q", test, key, got.ForecastUnavailable)
		}
	}
}

// A source that takes the place of another keeps the totals of policies of the same name, and gives up the others.
func TestAttach(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	tap := h.ForPolicy(service.Info{Name: "p", Limit: 1})
	attach := func(names ...string) {
		f := new(facts)
		for i, name := range names {
			f.policies = append(f.policies, service.Info{Name: name, Limit: int64(i)})
		}
		if err := h.Attach(f); err != nil {
			t.Fatal(err)
		}
	}
	attach("q", "p")
	tap.Decided(c.event("k", true))
	h.Decided(c.event("k", true))
	attach("p", "r")
	tap.Decided(c.event("k", true))
	h.ForPolicy(service.Info{Name: "p", Limit: 9}).Decided(c.event("k", true))
	rows := h.Snapshot(t.Context()).Policies
	if len(rows) != 2 || rows[0].Name != "p" || rows[0].Analytics.Allowed != 4 || rows[1].Name != "r" {
		t.Errorf("got %+v", rows)
	}
	fenced, ok := tap.(service.FenceTap)
	if !ok {
		t.Fatalf("%T hears of no fences", tap)
	}
	fenced.Fenced(service.Info{Name: "p"}, c.Now())
	if got := h.Snapshot(t.Context()).RecentFences; len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

// A service is a source, and the hub sees its life to the end.
func TestServiceAsSource(t *testing.T) {
	t.Parallel()
	h, err := New(Config{Backend: "memory"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := service.New(service.Config{Policies: []service.Policy{newGCRA(t, "p", 2)}, Taps: []service.Tap{h}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Attach(s); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Check(t.Context(), "p", "k", 1); err != nil {
			t.Fatal(err)
		}
	}
	row := one(t, h)
	if row.Analytics.Allowed != 2 || row.Analytics.Denied != 1 || row.Limit != 2 || row.Latency == nil || row.Forecast == nil || row.Forecast.Key != "k" {
		t.Errorf("got %+v", row)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Check(t.Context(), "p", "k", 1); !errors.Is(err, throttlekit.ErrClosed) {
		t.Fatal(err)
	}
	if row := one(t, h); row.Analytics.Total != 3 {
		t.Errorf("got %+v", row)
	}
}

func TestManyTenants(t *testing.T) {
	t.Parallel()
	s := service.ShareState{Policy: "p"}
	for i := range 100_000 {
		s.Stats.Tenants = append(s.Stats.Tenants, fair.Tenant{Tenant: fmt.Sprint(i, strings.Repeat("x", 200)), Weight: 1, Used: float64(i % 1000)})
	}
	s.Stats.Pool = math.Inf(-1)
	got := shareOf(&s).Value
	if len(got.Tenants) != 100 || got.TenantCount != 100_000 || got.Tenants[0].Used != 999 || got.Pool != 0 {
		t.Errorf("got %d of %d, from %+v", len(got.Tenants), got.TenantCount, got.Tenants[0])
	}
	for i, tenant := range got.Tenants {
		if want := strconv.Itoa(i*1000+999) + "x"; !strings.HasPrefix(tenant.Tenant, want) || len(tenant.Tenant) > keptKey+len(cut) {
			t.Errorf("%d: got %s", i, tenant.Tenant)
		}
	}
}
