package monitor

import (
	"cmp"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

// MetricsConfig says what metrics there are beside those of policies and guards.
type MetricsConfig struct {
	// TopKeys is for how many keys of each policy there are series with a label "key", those asked for and those denied most often
	// in the current window: from 0 to 10. Series of keys come and go, so Prometheus keeps many more than there are at a time;
	// and whoever reads the metrics reads the keys. 0 means none.
	TopKeys int
	// Version of the program, for throttlekit_build_info. Defaults to that of the module that was built.
	Version string
}

// Metrics is what a hub knows, for Prometheus. Totals run since the hub was made and never go back, unlike the counters
// of the reference, which start from 0 in every window. A policy that its source gives up loses its series.
//
// It is a [prometheus.Collector], for programs with a registry of their own, and has a [Metrics.Handler] for others.
type Metrics struct {
	hub    *Hub
	config MetricsConfig
}

var _ prometheus.Collector = (*Metrics)(nil)

// Metrics returns the metrics of the hub. The error matches [throttlekit.ErrInvalid].
func (h *Hub) Metrics(config MetricsConfig) (*Metrics, error) {
	if config.TopKeys < 0 || config.TopKeys > topKeys {
		return nil, &throttlekit.InvalidError{Field: "TopKeys", Value: config.TopKeys, Rule: "must be from 0 to 10"}
	}
	if config.Version == "" {
		config.Version = "unknown"
		if info, ok := debug.ReadBuildInfo(); ok {
			config.Version = cmp.Or(info.Main.Version, config.Version)
		}
	}
	return &Metrics{hub: h, config: config}, nil
}

// HasKeys says that the metrics have keys in them, so that they are for whoever may see keys.
func (m *Metrics) HasKeys() bool { return m.config.TopKeys > 0 }

// Handler answers GET with the metrics, in the text format 0.0.4 or in OpenMetrics, as the reader asks, and other methods with 405.
// It knows no secrets: whoever reaches it may read it.
func (m *Metrics) Handler() (http.Handler, error) {
	registry := prometheus.NewRegistry()
	if err := registry.Register(m); err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 8, EnableOpenMetrics: true,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		handler.ServeHTTP(w, r)
	}), nil
}

// Mux is for a port that serves nothing but metrics: [Metrics.Handler] at /metrics, and at /healthz and /health "ok", which says that
// the process lives (server specification §3.5).
func (m *Metrics) Mux() (*http.ServeMux, error) {
	handler, err := m.Handler()
	if err != nil {
		return nil, err
	}
	alive := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok")) // a caller that went away needs no answer
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", handler)
	mux.HandleFunc("GET /healthz", alive)
	mux.HandleFunc("GET /health", alive)
	return mux, nil
}

// The series. The first eight are those of the server specification, §3.5.
var (
	descAllowed = desc("allowed_total", "Decisions that allowed.", "policy")
	descDenied  = desc("denied_total", "Decisions that denied.", "policy")
	descByAxis  = desc("denied_by_axis_total", "Admissions denied, by the axis that denied.", "policy", "axis")
	descLimit   = desc("limit", "Limit of the latest decision, in units of cost.", "policy")
	descP50     = desc("latency_p50_ms", "Median time of the latest 256 timed decisions, in milliseconds.", "policy")
	descP99     = desc("latency_p99_ms", "99th percentile of the time of the latest 256 timed decisions, in milliseconds.", "policy")
	descFlight  = desc("guard_inflight", "Slots that are held.", "guard")
	descGuard   = desc("guard_limit", "Slots that may be held at once.", "guard")
	descFenced  = desc("guard_fenced", "1 if the guard admits nothing because its share of the fleet may have been given away.", "guard")

	descUnits    = desc("units_total", "Cost of what was allowed: of a meter, tokens.", "policy")
	descFailMode = desc("fail_mode_decisions_total", "Decisions that the fail mode made because the store could not.", "policy", "mode")
	descLeases   = desc("leases_total", "Leases granted.", "policy")
	descLeased   = desc("leased_units_total", "Units lent.", "policy")
	descWaiting  = desc("guard_waiting", "Callers that wait for a slot.", "guard")
	descShare    = desc("guard_share", "Slots of the fleet's ceiling that this server may use.", "guard")
	descCeiling  = desc("guard_fleet_limit", "Slots of the fleet.", "guard")
	descNodes    = desc("guard_fleet_nodes", "Servers that share the ceiling.", "guard")
	descFences   = desc("fences_total", "Times that a guard was fenced.", "guard")
	descPool     = desc("shared_pool", "Units of the window that are left for tenants, in units of cost.", "policy")
	descUsed     = desc("shared_used", "Units of the window that tenants have used, in units of cost.", "policy")
	descTenants  = desc("shared_tenants", "Tenants that are active in the window.", "policy")
	descTopAsked = desc("top_key_requests", "Estimated requests of a key in the current window.", "policy", "key")
	descTopDeny  = desc("top_key_denials", "Estimated denials of a key in the current window.", "policy", "key")
	descWatchers = desc("watchers", "Readers of the stream of denials.")
	descDropped  = desc("watch_dropped_total", "Denials that were left out of streams, counted for each reader.")
	descStoreErr = desc("store_errors_total", "Operations that the store failed to answer.", "operation")
	descStoreSec = desc("store_operation_duration_seconds", "Time that operations of the store took.", "operation")
	descStoreUp  = desc("store_up", "1 if the latest operation of the store did not fail.")
	descBuild    = desc("build_info", "1, with the version of the program.", "version", "goversion")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("throttlekit_"+name, help, labels, nil)
}

// Describe implements [prometheus.Collector].
func (*Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descAllowed, descDenied, descByAxis, descLimit, descP50, descP99, descFlight, descGuard, descFenced,
		descUnits, descFailMode, descLeases, descLeased, descWaiting, descShare, descCeiling, descNodes, descFences,
		descPool, descUsed, descTenants, descTopAsked, descTopDeny, descWatchers, descDropped,
		descStoreErr, descStoreSec, descStoreUp, descBuild,
	} {
		ch <- d
	}
}

// collection sends samples.
type collection chan<- prometheus.Metric

func (c collection) counter(d *prometheus.Desc, value float64, labels ...string) {
	c.send(prometheus.NewConstMetric(d, prometheus.CounterValue, value, labels...))
}

func (c collection) gauge(d *prometheus.Desc, value float64, labels ...string) {
	c.send(prometheus.NewConstMetric(d, prometheus.GaugeValue, value, labels...))
}

// send leaves out what Prometheus cannot hold.
func (c collection) send(m prometheus.Metric, err error) {
	if err == nil {
		c <- m
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	h, c := m.hub, collection(ch)
	now := h.nowMillis()
	guarded := make(map[string]bool)
	if source := h.source.Load(); source != nil {
		for _, g := range (*source).Guards() {
			guarded[g.Policy] = true
			c.guard(g)
		}
		shares := h.shares.of(*source)
		for i := range shares {
			s, name := &shares[i], label(shares[i].Policy)
			c.gauge(descPool, s.Stats.Pool, name)
			c.gauge(descUsed, s.Stats.TotalUsed, name)
			c.gauge(descTenants, float64(len(s.Stats.Tenants)), name)
		}
	}
	for _, p := range h.all() {
		m.policy(c, p, guarded[p.info.Name], now)
	}
	c.gauge(descWatchers, float64(h.feed.watchers()))
	c.counter(descDropped, float64(h.feed.dropped.Load()))
	if store := h.store.Load(); store != nil {
		store.collect(c)
	}
	c.gauge(descBuild, 1, m.config.Version, runtime.Version())
}

func (m *Metrics) policy(c collection, p described, guarded bool, now int64) {
	width := m.hub.width
	v, name := p.look(now, width), label(p.info.Name)
	c.counter(descAllowed, float64(v.total.allowed), name)
	c.counter(descDenied, float64(v.total.denied), name)
	c.counter(descUnits, v.total.units, name)
	c.counter(descFailMode, float64(v.total.failMode), name, string(cmp.Or(p.info.FailMode, m.hub.config.FailMode)))
	c.counter(descLeases, float64(v.total.leases), name)
	c.counter(descLeased, v.total.leased, name)
	lanes := p.lookLanes(now, width)
	if lanes == nil && guarded {
		lanes = new(lanesSeen)
	}
	if lanes != nil {
		for _, axis := range axes {
			c.counter(descByAxis, float64(*lanes.total.lane(axis)), name, axis)
		}
	}
	if guarded {
		c.counter(descFences, float64(p.fences.Load()), name)
	}
	if limit := p.limit.Load(); limit > 0 {
		c.gauge(descLimit, float64(limit), name)
	}
	if latency := p.timings.summary(); latency != nil {
		c.gauge(descP50, latency.P50Ms, name)
		c.gauge(descP99, latency.P99Ms, name)
	}
	c.top(descTopAsked, name, v.requested, m.config.TopKeys)
	c.top(descTopDeny, name, v.denied, m.config.TopKeys)
}

// top sends the head of a ranking. Keys that are shown alike, for what was cut from them, are one series.
func (c collection) top(d *prometheus.Desc, name string, rows []KeyCount, n int) {
	rows = rows[:min(n, len(rows))]
	for i, row := range rows {
		same := func(other KeyCount) bool { return other.Key == row.Key }
		if !slices.ContainsFunc(rows[:i], same) {
			c.gauge(d, float64(row.Count), name, row.Key)
		}
	}
}

func (c collection) guard(g service.GuardState) {
	name := label(g.Policy)
	fenced := 0.0
	if f := g.Fleet; f != nil {
		if f.Fenced {
			fenced = 1
		}
		c.gauge(descShare, float64(f.Share), name)
		c.gauge(descCeiling, float64(f.Ceiling), name)
		c.gauge(descNodes, float64(f.Nodes), name)
	}
	c.gauge(descFlight, float64(g.InFlight), name)
	c.gauge(descGuard, float64(g.Limit), name)
	c.gauge(descFenced, fenced, name)
	c.gauge(descWaiting, float64(g.Waiting), name)
}

func (w *WatchedStore) collect(c collection) {
	for op := range w.tallies {
		t, name := &w.tallies[op], operation(op).String()
		buckets := make(map[float64]uint64, len(storeBuckets))
		var n uint64
		for i := range t.buckets {
			n += uint64(t.buckets[i].Load())
			if i < len(storeBuckets) {
				buckets[storeBuckets[i]] = n
			}
		}
		c.counter(descStoreErr, float64(t.failed.Load()), name)
		c.send(prometheus.NewConstHistogram(descStoreSec, n, float64(t.nanos.Load())/1e9, buckets, name))
	}
	up := 1.0
	if w.failing.Load() {
		up = 0
	}
	c.gauge(descStoreUp, up)
}

// label is a name as Prometheus takes it: UTF-8.
func label(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }
