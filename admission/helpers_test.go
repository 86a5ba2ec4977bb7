package admission

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

// TestMain fails if a test leaves a goroutine behind that asks to be admitted, or beats for a fleet.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && leaked() {
		code = 1
	}
	os.Exit(code)
}

func leaked() bool {
	text := make([]byte, 1<<20)
	for range 100 {
		text = text[:runtime.Stack(text[:cap(text)], true)]
		foreign := true
		for _, ours := range []string{"admission.(*Admitter)", "/concurrency.", "sync.(*WaitGroup).Go"} { // the last before they begin
			foreign = foreign && !strings.Contains(string(text), ours)
		}
		if foreign {
			return false
		}
		<-time.After(20 * time.Millisecond)
	}
	_, _ = os.Stderr.WriteString("goroutines were left behind:\n" + string(text))
	return true
}

const start = 1_700_000_000_000

// world is what an admitter of a test lives in. Its clocks stand still unless the test moves them.
type world struct {
	clock   *throttlekit.ManualClock
	elapsed atomic.Int64 // of the guard's clock
	tick    atomic.Int64 // by which that moves whenever it is read
	guard   *concurrency.Guard
	store   *faultyStore
}

func newWorld(tb testing.TB, slots int) *world {
	tb.Helper()
	w := &world{clock: throttlekit.NewManualClock(start)}
	memory, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: w.clock})
	if err != nil {
		tb.Fatal(err)
	}
	w.store = &faultyStore{Store: memory}
	w.guard, err = concurrency.NewGuard(concurrency.Config{
		MinLimit: slots, MaxLimit: slots, Elapsed: func() time.Duration { return time.Duration(w.elapsed.Add(w.tick.Load())) },
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if n := w.guard.Stats().InFlight; n != 0 {
			tb.Errorf("%d slots are still held", n)
		}
		if err := memory.Close(); err != nil {
			tb.Error(err)
		}
	})
	return w
}

// config has all axes: a guard, a rate of 5 and a budget of 20 per minute.
func (w *world) config() Config {
	return Config{
		Guard: w.guard, Store: w.store, Clock: w.clock,
		Rate: &Limit{Strategy: throttlekit.FixedWindow{Limit: 5, Window: time.Minute}, Prefix: "rate"},
		Cost: &Limit{Strategy: throttlekit.TokenBucket{Capacity: 20, RefillPerSec: 1}, Prefix: "cost"},
	}
}

// left is what remains of a limit for a key.
func (w *world) left(tb testing.TB, l *Limit, key string) int64 {
	tb.Helper()
	rule, err := l.Strategy.Rule()
	if err != nil {
		tb.Fatal(err)
	}
	rec, now, err := w.store.Load(tb.Context(), l.Prefix+":"+key, rule)
	if err != nil {
		tb.Fatal(err)
	}
	return rule.Peek(rec, now).Remaining
}

func newAdmitter(tb testing.TB, config Config) *Admitter {
	tb.Helper()
	a, err := New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func newPrice(tb testing.TB, config PriceConfig) *Price {
	tb.Helper()
	p, err := NewPrice(config)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func admit(tb testing.TB, a *Admitter, r Request) Admission {
	tb.Helper()
	adm, err := a.Admit(tb.Context(), r)
	if err != nil {
		tb.Fatal(err)
	}
	return adm
}

// faultyStore counts what is asked of a store, and fails when told to.
type faultyStore struct {
	throttlekit.Store

	applies, batches atomic.Int64
	fault            atomic.Pointer[error]
	short            atomic.Bool // answers with a decision too few
	work             func()      // is done by each batch, if any
}

func (s *faultyStore) fail(err error) {
	if s.fault.Store(nil); err != nil {
		s.fault.Store(&err)
	}
}

func (s *faultyStore) err() error {
	if err := s.fault.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *faultyStore) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	s.applies.Add(1)
	if err := s.err(); err != nil {
		return throttlekit.Decision{}, err
	}
	return s.Store.Apply(ctx, key, t, cost)
}

func (s *faultyStore) Batch(ctx context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	s.batches.Add(1)
	if s.work != nil {
		s.work()
	}
	if commit != throttlekit.CommitAll {
		return nil, errors.New("the batch is not all or nothing")
	}
	if err := s.err(); err != nil {
		return nil, err
	}
	d, err := s.Store.Batch(ctx, ops, commit)
	if s.short.Load() {
		d = d[:1]
	}
	return d, err
}

// invalidFields are the fields that an error says are wrong.
func invalidFields(err error) (fields []string) {
	if invalid, ok := err.(*throttlekit.InvalidError); ok { //nolint:errorlint // the tree is walked here
		return []string{invalid.Field}
	}
	switch err := err.(type) { //nolint:errorlint // the tree is walked here
	case interface{ Unwrap() []error }:
		for _, e := range err.Unwrap() {
			fields = append(fields, invalidFields(e)...)
		}
	case interface{ Unwrap() error }:
		fields = invalidFields(err.Unwrap())
	}
	return fields
}
