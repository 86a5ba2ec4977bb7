package monitor

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/fair"
	"github.com/throttlekit/throttlekit-go/service"
)

// busy is a hub that has seen one of everything.
func busy(tb testing.TB, c clock) *Hub {
	tb.Helper()
	h := hubAt(tb, c, Config{})
	if err := h.Attach(&facts{
		policies: []service.Info{{Name: "guarded", Kind: "concurrency"}, {Name: "quiet", Kind: "distributedConcurrency"}, {Name: "p", Kind: "plain"}, {Name: `odd"\` + "\n\xff", FailMode: service.FailClosed}},
		guards: []service.GuardState{
			{Policy: "guarded", Limit: 8, InFlight: 3, Waiting: 1},
			{Policy: "quiet", Limit: 4, Fleet: &service.FleetState{Share: 2, Ceiling: 12, Nodes: 3, Fenced: true}},
		},
		shares: []service.ShareState{{Policy: "p", Stats: fair.Stats{Pool: 1, TotalUsed: 3, Tenants: make([]fair.Tenant, 2)}}},
	}); err != nil {
		tb.Fatal(err)
	}
	e := c.event("secret key", false)
	e.Elapsed = time.Millisecond
	h.Decided(e)
	e.Decision.Allowed, e.Lease, e.Cost, e.FailMode = true, true, 30, service.FailOpen
	h.Decided(e)
	e = c.event("secret key", false)
	e.Policy.Name, e.Admit, e.Axis = "guarded", true, "cost"
	h.Decided(e)
	h.Fenced(service.Info{Name: "quiet"}, c.Now())
	w, f, clock := watchFlaky(tb)
	f.fail(errDown)
	w.now = func() time.Duration { return time.Duration(clock.Add(int64(time.Millisecond))) }
	_, _ = w.Apply(tb.Context(), "k", w.probe, 1)
	h.AttachStore(w)
	return h
}

func metricsOf(tb testing.TB, h *Hub, config MetricsConfig) *Metrics {
	tb.Helper()
	m, err := h.Metrics(config)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// The linter of Prometheus finds nothing but the abbreviated unit of two series, whose names are not ours to change.
func TestMetricsLint(t *testing.T) {
	t.Parallel()
	m := metricsOf(t, busy(t, newClock()), MetricsConfig{TopKeys: 10})
	problems, err := testutil.CollectAndLint(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "throttlekit_latency_p") || !strings.Contains(p.Text, "abbreviated") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if err := prometheus.NewPedanticRegistry().Register(m); err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := busy(t, c)
	m := metricsOf(t, h, MetricsConfig{Version: "v1"})
	handler, err := m.Handler()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	get := func() string {
		t.Helper()
		res, err := server.Client().Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", res.Status, err)
		}
		return string(body)
	}
	text := get()
	for _, want := range []string{
		`allowed_total{policy="p"} 1`, `denied_total{policy="p"} 1`, `denied_total{policy="guarded"} 1`,
		`denied_by_axis_total{axis="cost",policy="guarded"} 1`, `denied_by_axis_total{axis="rate",policy="guarded"} 0`,
		`denied_by_axis_total{axis="policy",policy="quiet"} 0`,
		`limit{policy="p"} 5`, `latency_p50_ms{policy="p"} 1`, `latency_p99_ms{policy="p"} 1`,
		`guard_inflight{guard="guarded"} 3`, `guard_limit{guard="guarded"} 8`, `guard_fenced{guard="guarded"} 0`, `guard_fenced{guard="quiet"} 1`,
		`guard_waiting{guard="guarded"} 1`, `guard_share{guard="quiet"} 2`, `guard_fleet_limit{guard="quiet"} 12`, `guard_fleet_nodes{guard="quiet"} 3`,
		`fences_total{guard="quiet"} 1`, `units_total{policy="p"} 30`, `fail_mode_decisions_total{mode="open",policy="p"} 1`,
		`fail_mode_decisions_total{mode="closed",policy="odd\"\\\n` + "\uFFFD" + `"} 0`,
		`leases_total{policy="p"} 1`, `leased_units_total{policy="p"} 30`,
		`shared_pool{policy="p"} 1`, `shared_used{policy="p"} 3`, `shared_tenants{policy="p"} 2`,
		`watchers 0`, `watch_dropped_total 0`, `store_errors_total{operation="apply"} 1`, `store_up 0`,
		`store_operation_duration_seconds_bucket{operation="apply",le="0.0005"} 0`,
		`store_operation_duration_seconds_bucket{operation="apply",le="0.001"} 1`,
		`store_operation_duration_seconds_count{operation="apply"} 1`, `store_operation_duration_seconds_sum{operation="apply"} 0.001`,
	} {
		if !strings.Contains(text, "\nthrottlekit_"+want+"\n") {
			t.Errorf("no throttlekit_%s", want)
		}
	}
	for _, bad := range []string{"key=", "secret", "guard_share{guard=\"guarded\"", `denied_by_axis_total{axis="rate",policy="p"}`} {
		if strings.Contains(text, bad) {
			t.Errorf("there is %s", bad)
		}
	}
	if !strings.Contains(text, `throttlekit_build_info{goversion="go1`) || !strings.Contains(text, `version="v1"} 1`) {
		t.Error("no build info")
	}
	if t.Failed() {
		t.Log(text)
	}

	// True counters: what the next window begins with is what this one ends with.
	c.Advance(time.Hour)
	if text := get(); !strings.Contains(text, "\nthrottlekit_denied_total{policy=\"p\"} 1\n") {
		t.Error("a window reset a counter")
	}
	res, err := server.Client().Post(server.URL, "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %s", res.Status)
	}
}

func TestMetricsMux(t *testing.T) {
	t.Parallel()
	mux, err := metricsOf(t, busy(t, newClock()), MetricsConfig{}).Mux()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		method, path string
		status       int
		says         string
	}{
		{http.MethodGet, "/metrics?x=y", 200, "throttlekit_denied_total"},
		{http.MethodGet, "/healthz", 200, "ok"},
		{http.MethodGet, "/health", 200, "ok"},
		{http.MethodGet, "/", 404, ""},
		{http.MethodGet, "/metrics/x", 404, ""},
		{http.MethodPost, "/metrics", 405, ""},
		{http.MethodPost, "/healthz", 405, ""},
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), test.method, test.path, nil))
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.says) {
			t.Errorf("%s %s: got %d %.100s", test.method, test.path, w.Code, w.Body)
		}
	}
}

func TestTopKeyMetrics(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	for i := range 20 {
		for range i + 1 {
			h.Decided(c.event(fmt.Sprintf("%02d<\n\xff>", i), i%2 == 0))
		}
	}
	m := metricsOf(t, h, MetricsConfig{TopKeys: 2})
	if !m.HasKeys() || metricsOf(t, h, MetricsConfig{}).HasKeys() {
		t.Error("HasKeys is wrong")
	}
	const want = `# HELP throttlekit_top_key_denials Estimated denials of a key in the current window.
# TYPE throttlekit_top_key_denials gauge
throttlekit_top_key_denials{key="17<\n�>",policy="p"} 18
throttlekit_top_key_denials{key="19<\n�>",policy="p"} 20
# HELP throttlekit_top_key_requests Estimated requests of a key in the current window.
# TYPE throttlekit_top_key_requests gauge
throttlekit_top_key_requests{key="18<\n�>",policy="p"} 19
throttlekit_top_key_requests{key="19<\n�>",policy="p"} 20
`
	if err := testutil.CollectAndCompare(m, strings.NewReader(want), "throttlekit_top_key_denials", "throttlekit_top_key_requests"); err != nil {
		t.Error(err)
	}
	c.Advance(time.Minute)
	long := strings.Repeat("k", 200)
	h.Decided(c.event(long+"1", false)) // both are shown alike
	h.Decided(c.event(long+"2", false))
	if got := testutil.CollectAndCount(metricsOf(t, h, MetricsConfig{TopKeys: 10}), "throttlekit_top_key_denials"); got != 1 {
		t.Errorf("%d series", got)
	}
	for _, n := range []int{-1, 11} {
		if _, err := h.Metrics(MetricsConfig{TopKeys: n}); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("%d: got %v", n, err)
		}
	}
}
