package fair

import (
	"context"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// TestMain fails if a test leaves a goroutine of this package behind.
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
		if !strings.Contains(string(text), "fair.(*tank).pump") {
			return false
		}
		<-time.After(20 * time.Millisecond)
	}
	_, _ = os.Stderr.WriteString("goroutines were left behind:\n" + string(text))
	return true
}

// base is an instant at the start of a second and of a minute.
const base = 1_699_999_980_000

// lab is a store on a clock that the test moves, and the monotonic time that goes with it.
type lab struct {
	clock *throttlekit.ManualClock
	store *throttlekit.MemoryStore
}

func newLab(tb testing.TB) *lab {
	tb.Helper()
	clock := throttlekit.NewManualClock(base)
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	return &lab{clock: clock, store: store}
}

func (l *lab) monotonic() time.Duration {
	return time.Duration(l.clock.NowMillis()-base) * time.Millisecond
}

func (l *lab) escrow(tb testing.TB, config EscrowConfig) *Escrow {
	tb.Helper()
	if config.Window == 0 {
		config.Window = time.Second
	}
	if config.Store == nil {
		config.Clock = l.clock
	} else {
		config.Monotonic = l.monotonic
	}
	e, err := NewEscrow(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = e.Close() })
	return e
}

func newPool(tb testing.TB, config PoolConfig) *RegionPool {
	tb.Helper()
	if config.Window == 0 {
		config.Window = time.Second
	}
	p, err := NewRegionPool(config)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func (l *lab) federated(tb testing.TB, config FederatedConfig) *FederatedEscrow {
	tb.Helper()
	if config.Key == "" {
		config.Key = DefaultPoolPrefix + ":test"
	}
	if config.Store == nil {
		config.Store = l.store
	}
	if config.Monotonic == nil {
		config.Monotonic = l.monotonic
	}
	f, err := NewFederatedEscrow(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() })
	return f
}

// weights is a table of weights without the error, for weights that a test knows to be right.
func weights(table map[string]float64) WeightOf {
	of, err := Weights(table)
	if err != nil {
		return nil
	}
	return of
}

// checker is what all limiters of this package are.
type checker interface {
	throttlekit.Checker
	CheckN(ctx context.Context, tenant string, cost float64) (throttlekit.Decision, error)
}

func check(tb testing.TB, c checker, tenant string, cost float64) throttlekit.Decision {
	tb.Helper()
	d, err := c.CheckN(tb.Context(), tenant, cost)
	if err != nil {
		tb.Fatalf("%s, cost %v: %v", tenant, cost, err)
	}
	return d
}

// drain asks for one tenant after the other until nobody gets anything in a whole round,
// and returns what each got.
func drain(tb testing.TB, asks ...ask) map[string]float64 {
	tb.Helper()
	got := make(map[string]float64)
	for served := true; served; {
		served = false
		for _, a := range asks {
			cost := max(1, a.cost)
			if check(tb, a.from, a.tenant, cost).Allowed {
				got[a.tenant] += cost
				served = true
			}
		}
	}
	return got
}

type ask struct {
	from   checker
	tenant string
	cost   float64
}

func near(a, b, by float64) bool { return math.Abs(a-b) <= by }

// gatedStore is a store whose calls wait until the test lets them pass.
type gatedStore struct {
	throttlekit.Store

	entered chan struct{} // one for each call that has begun
	pass    chan error    // one for each call that may go on; an error makes it fail
	after   bool          // whether a call waits after the store has done it

	mu    sync.Mutex
	calls int
}

func newGated(store throttlekit.Store) *gatedStore {
	return &gatedStore{Store: store, entered: make(chan struct{}, 1000), pass: make(chan error)}
}

func (g *gatedStore) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	g.mu.Lock()
	g.calls++
	g.mu.Unlock()
	var d throttlekit.Decision
	var err error
	if g.after {
		d, err = g.Store.Apply(ctx, key, t, cost)
	}
	g.entered <- struct{}{}
	select {
	case failure := <-g.pass:
		if failure != nil {
			return throttlekit.Decision{}, failure
		}
	case <-ctx.Done():
		return throttlekit.Decision{}, ctx.Err()
	}
	if !g.after {
		d, err = g.Store.Apply(ctx, key, t, cost)
	}
	return d, err
}

func (g *gatedStore) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls
}
