package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/fair"
	"github.com/throttlekit/throttlekit-go/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is the beginning of a window of a minute.
const epoch = 1_795_000_020_000

// clock is a clock that tests move.
type clock struct{ *throttlekit.ManualClock }

func newClock() clock { return clock{throttlekit.NewManualClock(epoch)} }

func (c clock) Now() time.Time { return time.UnixMilli(c.NowMillis()) }

// hubAt is a hub by a clock.
func hubAt(tb testing.TB, c clock, config Config) *Hub {
	tb.Helper()
	config.Now = c.Now
	h, err := New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// event is a decision of policy "p" at the time of a clock.
func (c clock) event(key string, allowed bool) service.Event {
	return service.Event{
		Policy: service.Info{Name: "p", Kind: "plain", Strategy: "gcra", Limit: 5}, Key: key, Cost: 1, At: c.Now(),
		Decision: throttlekit.Decision{Allowed: allowed, Limit: 5, RetryAfterMillis: 7},
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, config := range []Config{
		{Window: -1}, {Window: time.Millisecond}, {Window: time.Second + 1}, {FailMode: "ajar"},
	} {
		if _, err := New(config); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("%+v: got %v", config, err)
		}
	}
	_, err := New(Config{Window: -1, FailMode: "ajar"})
	if err == nil || !strings.Contains(err.Error(), "Window") || !strings.Contains(err.Error(), "FailMode") {
		t.Errorf("got %v, want both", err)
	}
	h := hubAt(t, newClock(), Config{})
	if err := h.Attach(nil); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

// one is the only row of a hub.
func one(tb testing.TB, h *Hub) Policy {
	tb.Helper()
	s := h.Snapshot(tb.Context())
	if len(s.Policies) != 1 {
		tb.Fatalf("%d rows", len(s.Policies))
	}
	return s.Policies[0]
}

func TestWindows(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	counts := func(allowed, denied int64) {
		t.Helper()
		a := one(t, h).Analytics
		if a.Allowed != allowed || a.Denied != denied || a.Total != allowed+denied || a.WindowStartedAt != c.NowMillis()/60_000*60_000 {
			t.Errorf("at +%d ms: got %+v, want %d allowed, %d denied", c.NowMillis()-epoch, a, allowed, denied)
		}
		if len(a.TopRequested) > 0 != (allowed+denied > 0) || len(a.TopDenied) > 0 != (denied > 0) {
			t.Errorf("at +%d ms: rankings %v, %v", c.NowMillis()-epoch, a.TopRequested, a.TopDenied)
		}
	}
	late := c.event("k", false)
	h.Decided(c.event("k", true))
	h.Decided(c.event("k", true))
	h.Decided(c.event("k", false))
	counts(2, 1)
	c.Set(epoch + 59_999)
	h.Decided(c.event("k", true))
	counts(3, 1)
	c.Set(epoch + 60_000)
	counts(0, 0) // also when nothing happens
	h.Decided(c.event("k", true))
	h.Decided(late) // a decision of the window before, told late
	counts(1, 1)
	c.Set(epoch + 3_600_000)
	h.Decided(c.event("k", false))
	counts(0, 1)
	c.Set(epoch - 3_600_000) // the clock was put back: better a new window than none for an hour
	h.Decided(c.event("k", false))
	counts(0, 1)

	if got := h.all()[0].look(c.NowMillis(), h.width).total; got.allowed != 4 || got.denied != 4 || got.units != 4 {
		t.Errorf("totals: got %+v", got)
	}
}

func TestRankings(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	for i := range 30 {
		for range i {
			h.Decided(c.event(fmt.Sprintf("key%02d", i), i%2 == 0))
		}
	}
	a := one(t, h).Analytics
	if len(a.TopRequested) != 10 || len(a.TopDenied) != 10 {
		t.Fatalf("got %v, %v", a.TopRequested, a.TopDenied)
	}
	for i, row := range a.TopRequested {
		if want := (KeyCount{fmt.Sprintf("key%02d", 29-i), int64(29 - i)}); row != want {
			t.Errorf("requested %d: got %v, want %v", i, row, want)
		}
	}
	for i, row := range a.TopDenied {
		if want := (KeyCount{fmt.Sprintf("key%02d", 29-2*i), int64(29 - 2*i)}); row != want {
			t.Errorf("denied %d: got %v, want %v", i, row, want)
		}
	}
}

// Equal counts stand in the order of their keys, as existing dashboards expect.
func TestRankingTies(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	for _, key := range []string{"c", "a", "b"} {
		h.Decided(c.event(key, true))
	}
	if got := fmt.Sprint(one(t, h).Analytics.TopRequested); got != "[{a 1} {b 1} {c 1}]" {
		t.Errorf("got %s", got)
	}
}

// The algorithm itself: what is full gives the lowest counter to the newcomer, so no count is ever too low.
func TestSpaceSaving(t *testing.T) {
	t.Parallel()
	var r ranking
	want := make(map[string]int64)
	for i := range 10_000 {
		key := strconv.Itoa(i * i % 37)
		want[key]++
		r.add(uint64(i*i%37), key, 1)
	}
	var total int64
	for _, row := range r.collect(nil) {
		total += row.Count
		if row.Count < want[row.Key] {
			t.Errorf("%s: got %d, want at least %d", row.Key, row.Count, want[row.Key])
		}
	}
	if total != 10_000 {
		t.Errorf("counters add up to %d", total)
	}
}

// Among ten million decisions for as many keys, those that matter are found, and their counts are close, whatever the rhythm.
func TestRankingsOfMany(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	const n = 1_000_000
	for i := range n {
		key := fmt.Sprint("once", i)
		if i%16 == 3 { // the rhythm of the samples
			key = "hot"
		}
		if i%25 == 7 {
			key = "warm"
		}
		h.Decided(c.event(key, i%2 == 0))
	}
	a := one(t, h).Analytics
	if a.Total != n || a.Allowed != n/2 {
		t.Errorf("got %d, %d", a.Total, a.Allowed)
	}
	for i, want := range []KeyCount{{"hot", n/16 - n/400}, {"warm", n / 25}} {
		got := a.TopRequested[i]
		if slack := 12 * math.Sqrt(float64(want.Count)); got.Key != want.Key || math.Abs(float64(got.Count-want.Count)) > slack+n/160 {
			t.Errorf("%d: got %v, want about %v", i, got, want)
		}
	}
}

func TestKeysAreCut(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"":                             "",
		strings.Repeat("k", 128):       strings.Repeat("k", 128),
		strings.Repeat("k", 129):       strings.Repeat("k", 128) + "…",
		strings.Repeat("k", 1<<16):     strings.Repeat("k", 128) + "…",
		strings.Repeat("ä", 64):        strings.Repeat("ä", 64),
		"k" + strings.Repeat("ä", 99):  "k" + strings.Repeat("ä", 63) + "…",
		"kk" + strings.Repeat("😀", 99): "kk" + strings.Repeat("😀", 31) + "…",
		"a\xffb":                       "a\uFFFDb",
		strings.Repeat("\x80", 200):    "\uFFFD…",
	} {
		if got := shown(key); got != want {
			t.Errorf("%.10q (%d bytes): got %q, want %q", key, len(key), got, want)
		}
	}
}

// What strangers put into keys cannot leave its place in the document, and long keys stay apart.
func TestHostileKeys(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	long := strings.Repeat("x", 1<<16-1)
	keys := []string{"<script>alert(1)</script>", "\x00\x1b[2J\r\n", "\xff\xfe", "\u2028", `"},{"`, long + "1", long + "2"}
	for _, key := range keys {
		h.Decided(c.event(key, false))
	}
	text, err := h.Snapshot(t.Context()).JSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<", ">", "\x00", "\x1b", "\r", "\n", "\u2028", "\xff", strings.Repeat("x", 200)} {
		if strings.Contains(string(text), bad) {
			t.Errorf("the document has %.20q", bad)
		}
	}
	var back Snapshot
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if rows := back.Policies[0].Analytics.TopDenied; len(rows) != len(keys) || back.RecentDenials[0].Key != keys[0] {
		t.Errorf("got %d rows, %q", len(rows), back.RecentDenials[0].Key)
	}
}

func TestRecentDenials(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	if got := h.Snapshot(t.Context()).RecentDenials; got == nil || len(got) != 0 {
		t.Errorf("got %v, want an empty list", got)
	}
	for i := range 450 {
		c.Advance(10 * time.Millisecond)
		h.Decided(c.event(strconv.Itoa(i), false))
		h.Decided(c.event("allowed", true))
	}
	got := h.Snapshot(t.Context()).RecentDenials
	if len(got) != 200 || got[0].Key != "250" || got[199].Key != "449" {
		t.Fatalf("got %d, from %+v", len(got), got[0])
	}
	want := Denial{
		At: epoch + 4500, Policy: "p", Key: "449", Decision: Decision{Limit: 5, RetryAfterMs: 7},
	}
	if got[199] != want {
		t.Errorf("got %+v, want %+v", got[199], want)
	}
	// A flood shows its beginning, second by second.
	c.Advance(time.Second)
	for i := range 10_000 {
		h.Decided(c.event(fmt.Sprint("flood", i), false))
	}
	got = h.Snapshot(t.Context()).RecentDenials
	if first, last := got[0].Key, got[199].Key; first != "flood300" || last != "flood499" {
		t.Errorf("from %s to %s", first, last)
	}
}

func TestFences(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	for i := range 201 {
		h.Fenced(service.Info{Name: "guarded"}, time.UnixMilli(int64(i)))
	}
	got := h.Snapshot(t.Context()).RecentFences
	if len(got) != 200 || got[0] != (Fence{1, "guarded"}) || got[199] != (Fence{200, "guarded"}) {
		t.Errorf("got %d: %v", len(got), got[:1])
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	e := c.event("k", true)
	h.Decided(e)
	if got := one(t, h).Latency; got != nil {
		t.Errorf("nothing was timed: got %+v", got)
	}
	for i := range 1000 {
		e.Elapsed = time.Duration(i+1) * time.Millisecond // the last 256 count: from 745 to 1000
		h.Decided(e)
	}
	if got, want := *one(t, h).Latency, (Latency{AvgMs: 872.5, P50Ms: 872, P99Ms: 998, MaxMs: 1000, N: 256}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c.Advance(time.Hour)
	if got := one(t, h).Latency; got == nil || got.N != 256 {
		t.Errorf("a window reset it: got %+v", got)
	}
	// Nearest rank, as the specification has it, for few samples.
	var few timings
	for _, d := range []int{40, 10, 30, 20} {
		few.add(time.Duration(d) * time.Millisecond)
	}
	if got, want := *few.summary(), (Latency{AvgMs: 25, P50Ms: 20, P99Ms: 40, MaxMs: 40, N: 4}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Whatever decides is seen.
func TestEverythingIsSeen(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	tell := func(name, kind string, change func(e *service.Event)) {
		e := c.event("k", true)
		e.Policy = service.Info{Name: name, Kind: kind, Strategy: ""}
		change(&e)
		h.Decided(e)
	}
	tell("meter", "tokenBudget", func(e *service.Event) { e.Cost = 1000 })
	tell("meter", "tokenBudget", func(e *service.Event) { e.Cost = 0.5 })
	tell("meter", "tokenBudget", func(e *service.Event) { e.Cost, e.Decision.Allowed = 77, false })
	tell("lender", "federated", func(e *service.Event) { e.Lease, e.Cost = true, 30 })
	tell("lender", "federated", func(e *service.Event) { e.Lease, e.Cost, e.Decision.Allowed = true, 30, false })
	tell("outage", "plain", func(e *service.Event) { e.FailMode = service.FailOpen })
	for _, axis := range []string{"rate", "concurrency", "concurrency", "cost", "policy", "", "odd"} {
		tell("guarded", "concurrency", func(e *service.Event) { e.Admit, e.Axis, e.Decision.Allowed = true, axis, false })
	}
	tell("guarded", "concurrency", func(e *service.Event) { e.Admit = true })
	tell("idle guard", "concurrency", func(e *service.Event) { e.Admit = true })

	rows := make(map[string]Policy)
	var names []string
	for _, p := range h.Snapshot(t.Context()).Policies {
		rows[p.Name] = p
		names = append(names, p.Name)
	}
	if got := strings.Join(names, ","); got != "lender,meter,outage,guarded,idle guard" {
		t.Errorf("order %s, want limiters first", got)
	}
	if a := rows["meter"].Analytics; a.Units != 1000.5 || a.Allowed != 2 || a.Denied != 1 || rows["meter"].Kind != "limiter" || rows["meter"].PolicyKind != "tokenBudget" {
		t.Errorf("meter: %+v", rows["meter"])
	}
	if a := rows["lender"].Analytics; *a.Leases != (Leases{1, 30}) || a.Allowed != 1 || a.Denied != 1 {
		t.Errorf("lender: %+v", a)
	}
	if a := rows["outage"].Analytics; a.FailModeDecisions != 1 || a.Leases != nil || a.DeniedByLane != nil {
		t.Errorf("outage: %+v", a)
	}
	guarded := rows["guarded"].Analytics
	if got := *guarded.DeniedByLane; got != (Lanes[int64]{1, 2, 1, 3}) || guarded.Denied != 7 || guarded.Allowed != 1 {
		t.Errorf("guarded: %+v, %+v", got, guarded)
	}
	if got := fmt.Sprint(*guarded.TopDeniedByLane); got != "{[{k 1}] [{k 2}] [{k 1}] [{k 3}]}" {
		t.Errorf("guarded: %s", got)
	}
	if got := rows["idle guard"].Analytics.DeniedByLane; got == nil || *got != (Lanes[int64]{}) {
		t.Errorf("idle guard: %v, want all four lanes", got)
	}
	c.Advance(time.Minute)
	for _, p := range h.Snapshot(t.Context()).Policies {
		if l := p.Analytics.DeniedByLane; p.Name == "guarded" && *l != (Lanes[int64]{}) {
			t.Errorf("the next window began with %+v", l)
		}
	}
	lanes := map[string]string{}
	for _, d := range h.Snapshot(t.Context()).RecentDenials {
		lanes[d.Policy] += d.Lane + "-"
	}
	if lanes["meter"] != "-" || lanes["lender"] != "-" || lanes["guarded"] != "rate-concurrency-concurrency-cost-policy-policy-odd-" {
		t.Errorf("lanes: %q", lanes)
	}
}

// A million decisions from many goroutines, with a reader: nothing is lost, nothing races.
func TestMillionsAtOnce(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	const goroutines, each = 8, 125_000
	stop := make(chan struct{})
	var reader, writers sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				h.Snapshot(context.WithoutCancel(t.Context()))
			}
		}
	})
	for g := range goroutines {
		writers.Go(func() {
			for i := range each {
				e := c.event(strconv.Itoa(i%100), false)
				e.Policy.Name = fmt.Sprint("p", g%3)
				e.Elapsed = time.Duration(i)
				h.Decided(e)
			}
		})
	}
	writers.Wait()
	close(stop)
	reader.Wait()
	var denied int64
	for _, p := range h.Snapshot(t.Context()).Policies {
		denied += p.Analytics.Denied
	}
	if denied != goroutines*each {
		t.Errorf("%d denials, want %d", denied, goroutines*each)
	}
}

// With the hub watching 100 policies and ten million distinct keys gone by, it holds less than 4 MiB; the usual run has fewer
// keys, to the same end: what is held does not depend on them. THROTTLEKIT_LONG=1 runs it in full.
func TestMemoryIsBounded(t *testing.T) {
	keys := 300_000
	if os.Getenv("THROTTLEKIT_LONG") != "" {
		keys = 10_000_000
	}
	for _, width := range []int{20, 200} {
		c := newClock()
		before := heap()
		h := hubAt(t, c, Config{})
		buffer := make([]byte, 0, width)
		for i := range keys {
			buffer = fmt.Appendf(buffer[:0], "%0*d", width, i)
			e := c.event(string(buffer), i%3 == 0)
			e.Policy.Name = names[i%len(names)]
			e.Elapsed = time.Duration(i)
			h.Decided(e)
		}
		used := heap() - before
		t.Logf("%d keys of %d bytes, %d policies: %d KiB", keys, width, len(names), used>>10)
		if used > 4<<20 {
			t.Errorf("%d bytes", used)
		}
		runtime.KeepAlive(h)
	}
}

var names = func() (names [100]string) {
	for i := range names {
		names[i] = fmt.Sprint("policy-", i)
	}
	return names
}()

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestDecidedDoesNotAllocate(t *testing.T) {
	c := newClock()
	h := hubAt(t, c, Config{})
	keys := make([]string, 4096)
	for i := range keys {
		keys[i] = fmt.Sprint("user:", i)
	}
	i := 0
	decide := func() {
		e := c.event(keys[i%len(keys)], i%2 == 0)
		e.Elapsed = 1
		e.Admit, e.Axis = i%3 == 0, "rate"
		i++
		h.Decided(e)
	}
	for range 2 * len(keys) {
		decide()
	}
	if n := testing.AllocsPerRun(10_000, decide); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Policies that nobody configured cannot fill the memory either.
func TestPoliciesAreBounded(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	byName := make(map[string]*policy)
	for i := range maxPolicies {
		byName[strconv.Itoa(i)] = new(policy)
	}
	h.policies.Store(newDirectory(byName))
	h.Decided(c.event("k", false))
	h.Fenced(service.Info{Name: "q"}, c.Now())
	if got := len(h.policies.Load().byName); got != maxPolicies {
		t.Errorf("%d policies", got)
	}
	// Those of a service are as many as it has, and become known together.
	tap := h.ForPolicy(service.Info{Name: "r"})
	if again := h.ForPolicy(service.Info{Name: "r"}); again.(*policyTap).policy != tap.(*policyTap).policy {
		t.Error("a policy is known twice")
	}
	tap.Decided(c.event("k", true))
	h.all()
	if got := h.policies.Load().byName; len(got) != maxPolicies+1 || got["r"].total().allowed != 1 {
		t.Errorf("%d policies", len(got))
	}
}

// The shares of many tenants are read once in a while, however many look.
func TestSharesOfManyAreKept(t *testing.T) {
	t.Parallel()
	for tenants, want := range map[int]int{manyTenants: 3, manyTenants + 1: 1} {
		source := &sharing{states: []service.ShareState{{Stats: fair.Stats{Tenants: make([]fair.Tenant, tenants)}}}}
		var s shares
		for range 3 {
			if got := s.of(source); len(got) != 1 || len(got[0].Stats.Tenants) != tenants {
				t.Errorf("got %d", len(got))
			}
		}
		if source.reads != want {
			t.Errorf("%d tenants were read %d times, want %d", tenants, source.reads, want)
		}
	}
}

// sharing is a source that counts how often its shares are read.
type sharing struct {
	Source

	states []service.ShareState
	reads  int
}

func (s *sharing) Shares() []service.ShareState {
	s.reads++
	return s.states
}

// A tap of one policy takes checks by their parts, to the same effect.
func TestChecked(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	tap, ok := h.ForPolicy(c.event("", true).Policy).(interface {
		Checked(key string, cost float64, d throttlekit.Decision, atMillis int64, elapsed time.Duration)
	})
	if !ok {
		t.Fatal("it takes none")
	}
	events := watch(t, h, "p")
	for i, cost := range []float64{1, 2.5, 7} {
		tap.Checked("k", cost, throttlekit.Decision{Allowed: i < 2, Limit: 5, RetryAfterMillis: 9}, epoch+int64(i), time.Duration(i)*time.Millisecond)
	}
	got := one(t, h)
	want := Analytics{
		WindowStartedAt: epoch, WindowMs: 60_000, Allowed: 2, Denied: 1, Total: 3, DenyRate: 1.0 / 3, Units: 3.5,
		TopRequested: []KeyCount{{"k", 3}}, TopDenied: []KeyCount{{"k", 1}},
	}
	if !reflect.DeepEqual(got.Analytics, want) || got.Limit != 5 || *got.Latency != (Latency{1.5, 1, 2, 2, 2}) {
		t.Errorf("got %+v, %+v, want %+v", got, got.Latency, want)
	}
	if d := <-events.Events(); d.Key != "k" || d.At != epoch+2 || d.Decision.RetryAfterMs != 9 || d.Lane != "" {
		t.Errorf("got %+v", d)
	}
}
