package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/concurrency"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

var fleetAdmit = flag.Duration("fleetadmit", 5*time.Second, "how long TestFleetAdmitsUnderFaults lasts beside what the faults take")

// What the guarantee rests on. The fleet gives the slots of a silent server away 1500 ms after its last beat, and that server
// fences itself 700 ms before then. A request is over 400 ms after its client asked for a slot, for that deadline travels with
// it and the backend keeps to it; so it is over before the margin is, and before its lease could be reclaimed (600 ms). A job
// has no end, and stops when its client learns that the slot is lost. Only the server that is killed has jobs. The client
// gives a slot up 600 ms after the latest heartbeat that was answered, and finds out between two heartbeats, which go out
// every 200 ms and may hang for 400 ms: after 1000 ms at the latest. Slots are given away 1400 ms after the kill at the earliest.
const (
	fleetPolicy     = "work"
	fleetCeiling    = 24
	fleetSlotTTL    = 600 * time.Millisecond
	requestDeadline = 400 * time.Millisecond
	fleetAskers     = 26 // of each server, so that those of one alone want all that there is
	fleetJobs       = 2
	fleetPolicies   = "limiters:\n  work:\n    distributedConcurrency: {minLimit: 24, maxLimit: 24, aggregate: min," +
		" acknowledgedHandoff: true, heartbeatMs: 100, leaseTtlMs: 1500, fenceSafetyMarginMs: 700}\n"
)

// guardedBackend is what the fleet protects. It counts by itself what is in flight.
type guardedBackend struct {
	mu                     sync.Mutex
	inFlight, most, served int
	late                   int // requests whose deadline had passed when they came
}

func (b *guardedBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	takes, _ := time.ParseDuration(r.FormValue("takes")) // a job has none
	if due, err := strconv.ParseInt(r.FormValue("due"), 10, 64); err == nil {
		left := time.Until(time.UnixMilli(due))
		if left <= 0 {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.late++
			w.WriteHeader(http.StatusGatewayTimeout)
			return
		}
		takes = min(takes, left)
	}
	b.enter()
	defer b.leave() // before the answer is sent
	var done <-chan time.Time
	if takes > 0 {
		timer := time.NewTimer(takes)
		defer timer.Stop()
		done = timer.C
	}
	select {
	case <-done:
	case <-r.Context().Done(): // the client has hung up
	}
}

func (b *guardedBackend) enter() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.served++
	b.inFlight++
	b.most = max(b.most, b.inFlight)
}

func (b *guardedBackend) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inFlight--
}

func (b *guardedBackend) counts() (inFlight, most, served, late int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.inFlight, b.most, b.served, b.late
}

// fleetGroup are the clients of one server.
type fleetGroup struct {
	client                   atomic.Pointer[client.Client]
	admitted, denied, failed atomic.Int64
}

func (g *fleetGroup) String() string {
	return fmt.Sprintf("%d admitted, %d denied, %d failed", g.admitted.Load(), g.denied.Load(), g.failed.Load())
}

// do runs work under a slot.
func (g *fleetGroup) do(ctx context.Context, key string, work func(ctx context.Context) error) error {
	err := g.client.Load().Do(ctx, fleetPolicy, key, func(ctx context.Context) error {
		g.admitted.Add(1)
		return work(ctx)
	})
	switch {
	case errors.Is(err, client.ErrDenied):
		g.denied.Add(1)
	case err != nil:
		g.failed.Add(1)
	}
	return err
}

// admittingFleet is everything that the test runs, and what it has to tell.
type admittingFleet struct {
	t       *testing.T
	began   time.Time
	redis   *redistest.Server
	file    string
	backend *guardedBackend
	web     *httptest.Server
	groups  map[string]*fleetGroup
	text    strings.Builder
}

func newAdmittingFleet(t *testing.T) *admittingFleet {
	t.Helper()
	f := &admittingFleet{
		t: t, redis: startRedis(t, redistest.Options{}), file: filepath.Join(t.TempDir(), "work.yaml"),
		backend: &guardedBackend{}, groups: map[string]*fleetGroup{},
	}
	if err := os.WriteFile(f.file, []byte(fleetPolicies), 0o600); err != nil {
		t.Fatal(err)
	}
	f.web = httptest.NewServer(f.backend)
	t.Cleanup(f.web.Close)
	f.began = time.Now()
	t.Cleanup(func() { t.Log("\n" + f.text.String()) })
	return f
}

// join starts a server, and lets the clients of its group ask it.
func (f *admittingFleet) join(node, redisURL string) *process {
	f.t.Helper()
	p := serve(f.t, "--port", "0", "--http-port", "off", "--config", f.file, "--redis", redisURL, "--node-id", node,
		"--lease-ttl", fleetSlotTTL.String())
	c, err := client.Dial(p.grpc, client.WithLeaseTTL(fleetSlotTTL))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	if f.groups[node] == nil {
		f.groups[node] = &fleetGroup{}
	}
	f.groups[node].client.Store(c)
	return p
}

// visit asks the backend for work, and returns when it is over there.
func (f *admittingFleet) visit(ctx context.Context, query url.Values) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.web.URL+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := f.web.Client().Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// load has the clients of a group ask until stop is closed. Requests that are under way end by themselves.
func (f *admittingFleet) load(g *fleetGroup, stop <-chan struct{}, all *sync.WaitGroup) {
	for i := range fleetAskers {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				due := time.Now().Add(requestDeadline)
				err := g.do(f.t.Context(), strconv.Itoa(i), func(ctx context.Context) error {
					takes := time.Duration(40+rand.IntN(60)) * time.Millisecond
					return f.visit(ctx, url.Values{"due": {strconv.FormatInt(due.UnixMilli(), 10)}, "takes": {takes.String()}})
				})
				if err != nil {
					pass(f.t, 40*time.Millisecond)
				}
			}
		})
	}
}

// job holds a slot until it is lost, and tells the cause.
func (f *admittingFleet) job(g *fleetGroup, begun *atomic.Int64) (cause error) {
	for errors.Is(g.do(f.t.Context(), "job", func(ctx context.Context) error {
		begun.Add(1)
		err := f.visit(ctx, nil)
		cause = context.Cause(ctx)
		return err
	}), client.ErrDenied) {
		pass(f.t, 15*time.Millisecond)
	}
	return cause
}

// member is what the fleet's record tells of a server.
type fleetMember struct{ inFlight, share int }

// record is what Redis knows about the fleet.
func (f *admittingFleet) record() map[string]fleetMember {
	f.t.Helper()
	answer, err := f.redis.Do(f.t.Context(), "HGETALL", concurrency.CeilingKey(concurrency.DefaultCeilingPrefix, fleetPolicy))
	if err != nil {
		f.t.Fatal(err)
	}
	fields, _ := answer.([]any)
	members := map[string]fleetMember{}
	for pair := range slices.Chunk(fields, 2) {
		name, _ := pair[0].(string)
		text, _ := pair[1].(string)
		var limit, expires int64
		var m fleetMember
		if _, err := fmt.Sscan(text, &limit, &m.inFlight, &expires, &m.share); err != nil {
			f.t.Fatalf("the record of %q is %q: %v", name, text, err)
		}
		if limit > 0 { // otherwise it tells an owner
			members[name] = m
		}
	}
	return members
}

// until waits for something that is going to be.
func (f *admittingFleet) until(what string, holds func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(atMost); !holds(); pass(f.t, 5*time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not within %v: %s; the record is %v", atMost, what, f.record())
		}
	}
}

// shares waits until the fleet has these servers, with these shares.
func (f *admittingFleet) shares(want map[string]int) {
	f.t.Helper()
	f.until(fmt.Sprint("shares of ", want), func() bool {
		got := map[string]int{}
		for name, m := range f.record() {
			got[name] = m.share
		}
		return maps.Equal(got, want)
	})
}

// tell adds a line to the transcript: what happened, and what was counted so far.
func (f *admittingFleet) tell(what string, args ...any) {
	f.t.Helper()
	inFlight, most, served, _ := f.backend.counts()
	var shares []string
	record := f.record()
	for _, name := range slices.Sorted(maps.Keys(record)) {
		shares = append(shares, fmt.Sprintf("%s %d", name, record[name].share))
	}
	fmt.Fprintf(&f.text, "%6.2fs  %-66s | shares %-13s | backend: %2d in flight, at most %2d, %5d served\n",
		time.Since(f.began).Seconds(), fmt.Sprintf(what, args...), strings.Join(shares, " "), inFlight, most, served)
}

// served checks that each of these groups is admitted from now on.
func (f *admittingFleet) served(names ...string) {
	f.t.Helper()
	for _, name := range names {
		goal := f.groups[name].admitted.Load() + 20
		f.until("requests of "+name+" are admitted", func() bool { return f.groups[name].admitted.Load() >= goal })
	}
}

func sinceMillis(t time.Time) int64 { return time.Since(t).Milliseconds() }

// Three servers on one Redis under load. One is killed, one is cut off from Redis and comes back, and in the end a new one
// takes the name of the first. The backend, which counts by itself, never has more in flight than the ceiling; everybody is
// admitted again; nothing stays in flight.
func TestFleetAdmitsUnderFaults(t *testing.T) {
	t.Parallel()
	f := newAdmittingFleet(t)
	proxy, err := redistest.StartProxy(t.Context(), f.redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	a, b, c := f.join("a", f.redis.URL()), f.join("b", "redis://"+proxy.Addr), f.join("c", f.redis.URL())
	f.shares(map[string]int{"a": 8, "b": 8, "c": 8})
	f.tell("three servers share %d; %d clients each begin to ask", fleetCeiling, fleetAskers)

	var all, jobs sync.WaitGroup
	stop := make(chan struct{})
	stopped := sync.OnceFunc(func() {
		close(stop)
		all.Wait()
	})
	defer stopped()
	var begun, lost atomic.Int64
	for range fleetJobs {
		jobs.Go(func() {
			if cause := f.job(f.groups["a"], &begun); errors.Is(cause, client.ErrReclaimed) {
				lost.Add(1)
			} else {
				t.Errorf("a job of a ended by %v, want %v", cause, client.ErrReclaimed)
			}
		})
	}
	f.until("the jobs begin", func() bool { return begun.Load() == fleetJobs })
	for _, g := range f.groups {
		f.load(g, stop, &all)
	}
	f.served("a", "b", "c")
	pass(t, *fleetAdmit/5)
	f.tell("under load; %d clients of a have jobs without an end", fleetJobs)

	f.killed(a, &jobs)
	pass(t, *fleetAdmit/5)
	f.cutOff(b, proxy)
	pass(t, *fleetAdmit/5)
	began := time.Now()
	proxy.Thaw()
	f.tell("b reaches Redis again")
	f.shares(map[string]int{"b": 12, "c": 12})
	f.served("b", "c")
	f.tell("b has its share again, %d ms later", sinceMillis(began))
	pass(t, *fleetAdmit/5)
	began = time.Now()
	a = f.join("a", f.redis.URL())
	f.shares(map[string]int{"a": 8, "b": 8, "c": 8})
	f.served("a", "b", "c")
	f.tell("a new server has joined as a, %d ms after it was started", sinceMillis(began))
	pass(t, *fleetAdmit/5)
	stopped()
	f.until("nothing is in flight in the record", func() bool {
		return !slices.ContainsFunc(slices.Collect(maps.Values(f.record())), func(m fleetMember) bool { return m.inFlight != 0 })
	})
	f.tell("the clients have stopped, and the record tells of none in flight")
	for name, p := range map[string]*process{"a": a, "b": b, "c": c} {
		if err := p.signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if code := p.wait(); code != 0 {
			t.Errorf("%s ended with exit code %d: %s", name, code, p.stderr)
		}
	}
	if left := f.record(); len(left) > 0 {
		t.Errorf("servers that have left are in the record: %v", left)
	}
	f.tell("the servers have ended, and left the fleet")
	f.judge()
}

// killed kills a server, whose clients have jobs.
func (f *admittingFleet) killed(a *process, jobs *sync.WaitGroup) {
	f.t.Helper()
	if err := a.signal(syscall.SIGKILL); err != nil {
		f.t.Fatal(err)
	}
	began := time.Now()
	f.tell("a is killed")
	jobs.Wait()
	if _, listed := f.record()["a"]; !listed {
		f.t.Error("the slots of a were given away before its jobs had stopped")
	}
	f.tell("its jobs have stopped, %d ms after the kill: their slots are lost", sinceMillis(began))
	f.shares(map[string]int{"b": 12, "c": 12})
	f.served("b", "c")
	f.tell("b and c have its slots, %d ms after the kill", sinceMillis(began))
}

// cutOff keeps a server from Redis until it has lost its slots.
func (f *admittingFleet) cutOff(b *process, proxy *redistest.Proxy) {
	f.t.Helper()
	proxy.Freeze()
	began := time.Now()
	f.tell("b is cut off from Redis")
	if _, err := b.stderr.await(regexp.MustCompile("a policy is fenced")); err != nil {
		f.t.Fatal(err)
	}
	if _, listed := f.record()["b"]; !listed {
		f.t.Error("the slots of b were given away before it was fenced")
	}
	f.tell("b has fenced itself, %d ms after the cut", sinceMillis(began))
	f.shares(map[string]int{"c": 24})
	before := f.groups["b"].admitted.Load()
	f.tell("c has all slots, %d ms after the cut", sinceMillis(began))
	f.served("c")
	denied := f.groups["b"].denied.Load()
	f.until("b denies", func() bool { return f.groups["b"].denied.Load() > denied+fleetAskers })
	if after := f.groups["b"].admitted.Load(); after != before {
		f.t.Errorf("b has admitted %d while c had all slots", after-before)
	}
}

// judge is what holds in the end.
func (f *admittingFleet) judge() {
	f.t.Helper()
	inFlight, most, served, late := f.backend.counts()
	if most > fleetCeiling {
		f.t.Errorf("the backend had %d in flight, the ceiling is %d", most, fleetCeiling)
	}
	if most < fleetCeiling*3/4 {
		f.t.Errorf("at most %d in flight of %d are no load", most, fleetCeiling)
	}
	if inFlight != 0 {
		f.t.Errorf("%d are still in flight", inFlight)
	}
	for _, name := range slices.Sorted(maps.Keys(f.groups)) {
		fmt.Fprintf(&f.text, "clients of %s: %v\n", name, f.groups[name])
	}
	fmt.Fprintf(&f.text, "backend: at most %d in flight of %d, by its own count, over %d requests; %d came too late and were not begun\n",
		most, fleetCeiling, served, late)
}
