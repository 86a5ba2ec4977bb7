package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// toy is a sound store of a few lines that keeps text, and that can be broken in one
// way at a time, to show that the suite notices.
type toy struct {
	broken string
	clock  throttlekit.Clock
	mu     sync.Mutex
	texts  map[string]toyRecord
	closed bool
}

type toyRecord struct {
	text    []byte
	expires int64
}

func newToy(broken string, clock throttlekit.Clock) *toy {
	return &toy{broken: broken, clock: clock, texts: make(map[string]toyRecord)}
}

// key is where a record is kept.
func (s *toy) key(key string) string {
	switch s.broken {
	case "cuts keys at NUL":
		key, _, _ = strings.Cut(key, "\x00")
	case "folds case":
		key = strings.ToLower(key)
	case "cuts long keys":
		key = key[:min(len(key), 1024)]
	case "repairs UTF-8":
		key = strings.ToValidUTF8(key, "\ufffd")
	case "drops colons":
		key = strings.ReplaceAll(key, ":", "")
	}
	return key
}

// read is a key's record at now. The lock is held.
func (s *toy) read(key string, t throttlekit.Transition, now int64) (throttlekit.Record, error) {
	r, ok := s.texts[s.key(key)]
	if !ok || r.expires <= now && s.broken != "never expires" {
		return throttlekit.Record{}, nil
	}
	return t.Decode(r.text)
}

// write keeps a record. The lock is held.
func (s *toy) write(key string, t throttlekit.Transition, rec throttlekit.Record, now, ttl int64) error {
	text, err := t.Encode(rec)
	switch s.broken {
	case "expires a millisecond late":
		ttl++
	case "overflows":
		// as it is
	default:
		ttl = min(ttl, throttlekit.MaxSafe)
	}
	if s.broken == "rounds" {
		text = bytes.ReplaceAll(text, []byte(".5"), []byte(".4"))
	}
	s.texts[s.key(key)] = toyRecord{text, now + ttl}
	return err
}

func (s *toy) Apply(_ context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return throttlekit.Decision{}, throttlekit.ErrClosed
	}
	return s.step(key, t, cost, s.clock.NowMillis())
}

// step applies one transition. The lock is held, except while a racy store lets others in.
func (s *toy) step(key string, t throttlekit.Transition, cost float64, now int64) (throttlekit.Decision, error) {
	rec, err := s.read(key, t, now)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	if s.broken == "is not atomic" {
		s.mu.Unlock()
		for range 20 {
			runtime.Gosched()
		}
		s.mu.Lock()
	}
	next, d, ttl := t.Apply(rec, now, cost)
	if ttl == 0 && s.broken == "persists denials" {
		next.A, ttl = next.A+1, 1000
	}
	if s.broken == "answers late" && ttl > 0 {
		_, d, _ = t.Apply(next, now, cost)
	}
	if ttl > 0 && s.broken != "forgets" {
		err = s.write(key, t, next, now, ttl)
	}
	return d, err
}

func (s *toy) Batch(_ context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.NowMillis()
	switch {
	case s.closed:
		return nil, throttlekit.ErrClosed
	case commit == throttlekit.CommitEach:
		if s.broken == "reverses batches" {
			slices.Reverse(ops)
		}
	case s.broken == "has no atomic batches":
		return nil, throttlekit.ErrUnsupported
	case s.broken != "takes duplicates":
		seen := map[string]bool{}
		for _, op := range ops {
			if seen[op.Key] {
				return nil, throttlekit.ErrInvalid
			}
			seen[op.Key] = true
		}
	}
	if commit == throttlekit.CommitAll && s.broken != "ignores CommitAll" {
		decisions, allowed := s.preview(ops, now)
		if !allowed {
			return decisions, nil
		}
	}
	decisions := make([]throttlekit.Decision, 0, len(ops))
	for _, op := range ops {
		d, err := s.step(op.Key, op.Transition, op.Cost, now)
		if err != nil {
			return nil, err
		}
		decisions = append(decisions, d)
		if s.broken == "stops batches at a denial" && !d.Allowed {
			break
		}
	}
	for len(decisions) < len(ops) {
		decisions = append(decisions, throttlekit.Decision{})
	}
	return decisions, nil
}

// preview decides without charging.
func (s *toy) preview(ops []throttlekit.Op, now int64) (decisions []throttlekit.Decision, allowed bool) {
	allowed = true
	for _, op := range ops {
		rec, err := s.read(op.Key, op.Transition, now)
		if err != nil {
			return nil, false
		}
		_, d, _ := op.Transition.Apply(rec, now, op.Cost)
		decisions, allowed = append(decisions, d), allowed && d.Allowed
	}
	return decisions, allowed
}

func (s *toy) Load(_ context.Context, key string, t throttlekit.Transition) (throttlekit.Record, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && s.broken != "loads after Close" {
		return throttlekit.Record{}, 0, throttlekit.ErrClosed
	}
	now := s.clock.NowMillis()
	rec, err := s.read(key, t, now)
	if s.broken == "loads another clock" {
		now++
	}
	return rec, now, err
}

func (s *toy) Reset(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return throttlekit.ErrClosed
	case s.broken == "resets all":
		clear(s.texts)
	case s.broken != "does not reset":
		delete(s.texts, s.key(key))
	}
	return nil
}

func (s *toy) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && s.broken == "closes once" {
		return errors.New("closed already")
	}
	s.closed = true
	return nil
}

// handle is one of several handles on a toy, with an end of its own.
type handle struct {
	*toy

	closed atomic.Bool
}

func (h *handle) check() error {
	if h.closed.Load() {
		return throttlekit.ErrClosed
	}
	return nil
}

func (h *handle) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	if err := h.check(); err != nil {
		return throttlekit.Decision{}, err
	}
	return h.toy.Apply(ctx, key, t, cost)
}

func (h *handle) Batch(ctx context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	return h.toy.Batch(ctx, ops, commit)
}

func (h *handle) Load(ctx context.Context, key string, t throttlekit.Transition) (throttlekit.Record, int64, error) {
	if err := h.check(); err != nil {
		return throttlekit.Record{}, 0, err
	}
	return h.toy.Load(ctx, key, t)
}

func (h *handle) Reset(ctx context.Context, key string) error {
	if err := h.check(); err != nil {
		return err
	}
	return h.toy.Reset(ctx, key)
}

func (h *handle) Close() error {
	h.closed.Store(true)
	return nil
}

// Two handles on one sound store pass together, on a clock that nobody moves.
func TestPeersPass(t *testing.T) {
	Run(t, func(*testing.T) Harness {
		shared := newToy("", throttlekit.SystemClock{})
		return Harness{Store: &handle{toy: shared}, Peer: &handle{toy: shared}, Workers: 8}
	})
}

// Two stores that call themselves peers but share nothing are found out.
func TestStrangersFail(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Counter", "ConcurrentIncrements", "ConcurrentChecks/gcra", "BatchAgainstApply", "LimiterAll"} {
		failures := record(t, name, func() Harness {
			return Harness{Store: newToy("", throttlekit.SystemClock{}), Peer: newToy("", throttlekit.SystemClock{})}
		})
		if len(failures) == 0 {
			t.Errorf("two strangers pass %s", name)
		}
	}
}

// recorder is a test that notes its failures instead of passing them on.
type recorder struct {
	testing.TB

	mu       sync.Mutex
	failures []string
	skipped  bool
}

func (r *recorder) note(message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, message)
}

func (r *recorder) Error(args ...any)                 { r.note(fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.note(fmt.Sprintf(format, args...)) }

func (r *recorder) Fatal(args ...any) {
	r.Error(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skip(...any) {
	r.skipped = true
	runtime.Goexit()
}

// record runs one case and returns its failures.
func record(t *testing.T, name string, open func() Harness) []string {
	t.Helper()
	r := &recorder{TB: t}
	for _, c := range cases() {
		if c.name == name {
			var done sync.WaitGroup
			done.Go(func() { c.run(newFixture(r, open())) }) // Fatal ends a goroutine, not this one
			done.Wait()
			return r.failures
		}
	}
	t.Fatalf("no case is called %s", name)
	return nil
}

// findings runs the cases whose name matches on a toy and returns the names of those that fail.
func findings(t *testing.T, broken string, names ...string) (failed []string) {
	t.Helper()
	for _, c := range cases() {
		if len(names) > 0 && !slices.Contains(names, c.name) {
			continue
		}
		failures := record(t, c.name, func() Harness {
			clock := throttlekit.NewManualClock(0)
			h := Harness{Store: newToy(broken, clock), Clock: clock}
			if broken == "has no atomic batches" {
				h.Atomic = func(throttlekit.Transition) bool { return false }
			}
			return h
		})
		if len(failures) > 0 {
			failed = append(failed, c.name)
			t.Logf("%s: %s", c.name, failures[0])
		}
	}
	return failed
}

// A sound store passes every case, so the suite asks for nothing that only the memory store does.
func TestSoundStorePasses(t *testing.T) {
	t.Parallel()
	for _, broken := range []string{"", "has no atomic batches"} {
		if failed := findings(t, broken); len(failed) > 0 {
			t.Errorf("a sound store that %q fails %q", broken, failed)
		}
	}
}

// Every way of being broken fails the case that is about it.
func TestBrokenStoresFail(t *testing.T) {
	t.Parallel()
	for broken, name := range map[string]string{
		"is not atomic":              "ConcurrentIncrements",
		"forgets":                    "Counter",
		"answers late":               "Linearizable",
		"persists denials":           "Denial/fixedWindow",
		"never expires":              "Expiry",
		"expires a millisecond late": "Expiry",
		"overflows":                  "HugeTTL",
		"rounds":                     "Model/tokenBucket",
		"does not reset":             "Reset",
		"resets all":                 "Reset",
		"loads another clock":        "Load",
		"reverses batches":           "BatchEach",
		"stops batches at a denial":  "BatchEachIndependent",
		"ignores CommitAll":          "BatchAll/gcra",
		"takes duplicates":           "BatchDuplicates",
		"cuts keys at NUL":           "OddKeys",
		"folds case":                 "OddKeys",
		"repairs UTF-8":              "OddKeys",
		"drops colons":               "Prefixes",
		"cuts long keys":             "LongKeys",
		"loads after Close":          "Closed",
		"closes once":                "Closed",
	} {
		t.Run(broken, func(t *testing.T) {
			t.Parallel()
			if failed := findings(t, broken, name); !slices.Equal(failed, []string{name}) {
				t.Errorf("a store that %s passes %s", broken, name)
			}
		})
	}
}

// More than one case tells a store that is not atomic.
func TestRacyStoreFailsEverywhere(t *testing.T) {
	t.Parallel()
	names := []string{"ConcurrentIncrements", "ConcurrentChecks/gcra", "ConcurrentChecks/slidingWindowLog", "Linearizable", "Shaper", "LimiterAll", "LimiterAny"}
	if failed := findings(t, "is not atomic", names...); len(failed) != len(names) {
		t.Errorf("only %q fail, want %q", failed, names)
	}
}

// A store that says it can do atomic batches must do them, and the other way round.
func TestAtomicIsHeldTo(t *testing.T) {
	t.Parallel()
	run := func(broken string, atomic bool) []string {
		return record(t, "BatchAll/gcra", func() Harness {
			return Harness{Store: newToy(broken, throttlekit.SystemClock{}), Atomic: func(throttlekit.Transition) bool { return atomic }}
		})
	}
	if len(run("has no atomic batches", true)) == 0 {
		t.Error("a store that refuses what it can do passes")
	}
	if len(run("", false)) == 0 {
		t.Error("a store that does what it cannot do passes")
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	yes := func(cost float64, begin, end, left int64) answer {
		return answer{throttlekit.Decision{Allowed: true, Remaining: left}, cost, begin, end}
	}
	no := func(cost float64, begin, end, left int64) answer {
		return answer{throttlekit.Decision{Remaining: left, RetryAfterMillis: 1}, cost, begin, end}
	}
	for name, c := range map[string]struct {
		history []answer
		sound   bool
	}{
		"overlapping, out of order": {[]answer{yes(1, 1, 5, 2), yes(2, 2, 4, 3)}, true},
		"a late denial":             {[]answer{yes(4, 1, 2, 1), no(2, 3, 4, 1)}, true},
		"an early denial":           {[]answer{yes(4, 1, 4, 1), no(2, 2, 3, 1)}, true},
		"the same unit twice":       {[]answer{yes(1, 1, 4, 4), yes(1, 2, 3, 4)}, false},
		"a unit lost":               {[]answer{yes(1, 1, 2, 4), yes(1, 3, 4, 2)}, false},
		"against time":              {[]answer{yes(1, 3, 4, 4), yes(2, 1, 2, 2)}, false},
		"denied what would fit":     {[]answer{yes(3, 1, 2, 2), no(2, 3, 4, 2)}, false},
		"denied at no such state":   {[]answer{yes(2, 1, 2, 3), no(5, 3, 4, 4)}, false},
		"denied before its time":    {[]answer{yes(4, 3, 4, 1), no(2, 1, 2, 1)}, false},
	} {
		if err := explain(c.history, 5); (err == nil) != c.sound {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLeaksAreFound(t *testing.T) {
	before := goroutines()
	if left := leaks(before, 10); len(left) > 0 {
		t.Fatalf("nothing was started, and yet %q", left)
	}
	stop, running := make(chan struct{}), make(chan struct{})
	go func() {
		close(running)
		<-stop
	}()
	<-running
	left := leaks(before, 10)
	close(stop)
	if len(left) != 1 || !strings.Contains(left[0], "TestLeaksAreFound") {
		t.Errorf("leaks %q, want the one goroutine", left)
	}
	if left := leaks(before, 100); len(left) > 0 {
		t.Errorf("after its end %q", left)
	}
}

// The probes keep to the contract of transitions.
func TestProbes(t *testing.T) {
	t.Parallel()
	rec, d, ttl := lasting.Apply(throttlekit.Record{A: 2}, 7, 3)
	if rec.A != 5 || d.Remaining != 5 || d.ResetAtMillis != 7 || ttl != lasting.ttl {
		t.Errorf("counter: %+v, %+v, %d", rec, d, ttl)
	}
	if _, d, ttl := (reader{}).Apply(rec, 7, 3); d.Remaining != 5 || ttl != 0 {
		t.Errorf("reader: %+v, %d", d, ttl)
	}
	text, err := lasting.Encode(rec)
	if back, errBack := lasting.Decode(text); err != nil || errBack != nil || back != rec || !json.Valid(text) {
		t.Errorf("%s reads back as %+v: %v, %v", text, back, err, errBack)
	}
	for _, s := range strategies(1) {
		if quick(s.name) == nil || strategy(s.name, 1) == nil {
			t.Errorf("no strategy for %s", s.name)
		}
	}
}
