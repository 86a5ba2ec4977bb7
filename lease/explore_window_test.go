package lease

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// The tests named TestExplore go through every interleaving of what nodes can do, with the
// real transitions and the constants of the models in spec/, and expect the same maxima
// and as many distinct states as the model checker found.

// explore visits everything that can be reached from first. Of the states that look the
// same by key, it goes on from the one that it meets first.
func explore[S any, K comparable](t *testing.T, first S, key func(S) K, next func(S, func(S))) map[K]S {
	t.Helper()
	const tooMany = 100_000 // a key that tells too much apart
	seen := map[K]S{key(first): first}
	for queue := []S{first}; len(queue) > 0; queue = queue[1:] {
		if len(seen) > tooMany {
			t.Fatalf("more than %d states", tooMany)
		}
		next(queue[0], func(s S) {
			k := key(s)
			if _, ok := seen[k]; !ok {
				seen[k] = s
				queue = append(queue, s)
			}
		})
	}
	return seen
}

// most is the largest of a value over all states.
func most[S any, K comparable](states map[K]S, value func(S) int) int {
	top := 0
	for _, s := range states {
		top = max(top, value(s))
	}
	return top
}

const exploredWindow = time.Second

// windowModel is one row of the tables of modules DistributedLeasing,
// GaleWindowCoupledLeasing and GaleFederatedLeasing.
type windowModel struct {
	nodes, limit, batch        int
	partial, coupled, returned bool
	federated                  bool // by the coordinator's own transitions
	states, most               int
}

func (m windowModel) name() string {
	return fmt.Sprintf("nodes=%d limit=%d batch=%d partial=%t coupled=%t returned=%t federated=%t",
		m.nodes, m.limit, m.batch, m.partial, m.coupled, m.returned, m.federated)
}

// windowFleet is a state: the store's record, what each node holds, and what was admitted
// since the window rolled. The time is always that at which a window begins.
type windowFleet struct {
	now      int64
	record   throttlekit.Record
	nodes    []Spender
	admitted int
}

func (f windowFleet) clone() windowFleet {
	f.nodes = slices.Clone(f.nodes)
	return f
}

// windowKey is what the models keep of a state.
type windowKey struct {
	shared, admitted int
	credits          [8]int
}

// windowRules are the transitions under test.
type windowRules struct {
	rule  throttlekit.Windowed
	lease throttlekit.Transition
}

func (m windowModel) rules(t *testing.T) windowRules {
	t.Helper()
	strategy := throttlekit.FixedWindow{Limit: float64(m.limit), Window: exploredWindow}
	if m.federated {
		return federatedRules(t, strategy)
	}
	rule, err := strategy.Rule()
	if err != nil {
		t.Fatal(err)
	}
	windowed, ok := rule.(throttlekit.Windowed)
	if !ok {
		t.Fatal("a fixed window is not Windowed")
	}
	least := m.batch
	if m.partial {
		least = 1
	}
	return windowRules{rule: windowed, lease: throttlekit.UpTo(rule, float64(least))}
}

// federatedRules are those of a coordinator.
func federatedRules(t *testing.T, strategy throttlekit.Strategy) windowRules {
	t.Helper()
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCoordinator(CoordinatorConfig{Strategy: strategy, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	return windowRules{rule: c.rule, lease: c.any}
}

func (m windowModel) first(t *testing.T) windowFleet {
	t.Helper()
	f := windowFleet{nodes: make([]Spender, m.nodes)}
	for i := range f.nodes {
		spender, err := NewSpender(SpenderConfig{Limit: int64(m.limit), Carryover: !m.coupled})
		if err != nil {
			t.Fatal(err)
		}
		f.nodes[i] = spender
	}
	return f
}

func (r windowRules) key(f windowFleet) windowKey {
	k := windowKey{admitted: f.admitted, shared: int(r.left(f.record, f.now))}
	for i := range f.nodes {
		k.credits[i] = int(f.nodes[i].Credits(f.now))
	}
	return k
}

// left is what the shared window still has. Peek speaks of a request of cost 1 and does
// not charge it.
func (r windowRules) left(record throttlekit.Record, now int64) int64 {
	return r.rule.Peek(record, now).Remaining
}

// request is a request of cost 1 at one node.
func (r windowRules) request(f windowFleet, node, batch int) (windowFleet, bool) {
	f = f.clone()
	spender := &f.nodes[node]
	if _, ok := spender.Spend(f.now, 1); !ok {
		var d throttlekit.Decision
		f.record, d, _ = r.lease.Apply(f.record, f.now, float64(batch))
		if !d.Allowed {
			return f, false
		}
		spender.Grant(float64(d.Remaining), d.ResetAtMillis)
		if _, ok := spender.Spend(f.now, 1); !ok {
			return f, false
		}
	}
	f.admitted++
	return f, true
}

// giveBack returns what one node holds.
func (r windowRules) giveBack(f windowFleet, node int) (windowFleet, bool) {
	f = f.clone()
	spender := &f.nodes[node]
	units := spender.Credits(f.now)
	if units == 0 {
		return f, false
	}
	resetAt := spender.expiresAt
	spender.Reset()
	f.record, _, _ = r.rule.Refund(resetAt).Apply(f.record, f.now, units)
	return f, true
}

func TestExploreWindows(t *testing.T) {
	t.Parallel()
	const (
		carryover = iota
		coupled
		returned
	)
	shapes := []struct {
		nodes, limit, batch int
		states, most        [3]int // carryover, coupled, coupled and given back
	}{
		{2, 4, 2, [3]int{31, 8, 12}, [3]int{6, 4, 4}},
		{3, 6, 3, [3]int{441, 27, 43}, [3]int{12, 6, 6}},
		{5, 10, 2, [3]int{992, 112, 192}, [3]int{15, 10, 10}},
		{4, 12, 4, [3]int{10432, 256, 499}, [3]int{24, 12, 12}},
		{1, 8, 2, [3]int{19, 9, 16}, [3]int{9, 8, 8}},
		{2, 8, 2, [3]int{55, 16, 28}, [3]int{10, 8, 8}},
		{4, 8, 2, [3]int{344, 48, 80}, [3]int{12, 8, 8}},
		{8, 8, 2, [3]int{8762, 303, 443}, [3]int{16, 8, 8}},
		{3, 5, 1, [3]int{6, 6, 6}, [3]int{5, 5, 5}},
	}
	models := []windowModel{
		{nodes: 2, limit: 5, batch: 2, states: 31, most: 6},
		{nodes: 2, limit: 5, batch: 2, partial: true, states: 40, most: 7},
		{nodes: 2, limit: 5, batch: 2, coupled: true, states: 8, most: 4},
		{nodes: 2, limit: 5, batch: 2, coupled: true, partial: true, states: 11, most: 5},
		{nodes: 2, limit: 5, batch: 2, coupled: true, partial: true, federated: true, states: 11, most: 5},
		{nodes: 2, limit: 5, batch: 2, coupled: true, partial: true, returned: true, states: 16, most: 5},
		{nodes: 2, limit: 5, batch: 2, coupled: true, partial: true, returned: true, federated: true, states: 16, most: 5},
	}
	for _, s := range shapes {
		m := windowModel{nodes: s.nodes, limit: s.limit, batch: s.batch}
		for mode := range s.states {
			m.states, m.most = s.states[mode], s.most[mode]
			m.coupled, m.returned = mode >= coupled, mode == returned
			models = append(models, m)
			if mode == carryover {
				continue
			}
			// The limits are whole batches, and giving back returns what makes them whole.
			federated := m
			federated.partial, federated.federated = true, true
			models = append(models, federated)
		}
	}
	for _, m := range models {
		t.Run(m.name(), func(t *testing.T) {
			t.Parallel()
			m.explore(t)
		})
	}
}

func (m windowModel) explore(t *testing.T) {
	t.Helper()
	rules := m.rules(t)
	states := explore(t, m.first(t), rules.key, func(f windowFleet, visit func(windowFleet)) {
		for node := range f.nodes {
			if next, ok := rules.request(f, node, m.batch); ok {
				visit(next)
			}
			if next, ok := rules.giveBack(f, node); ok && m.returned {
				visit(next)
			}
		}
		if m.returned { // what comes back from the window before is forfeited
			next := f.clone()
			next.record, _, _ = rules.rule.Refund(f.now).Apply(f.record, f.now, float64(m.batch))
			visit(next)
		}
		rolled := f.clone()
		rolled.now += exploredWindow.Milliseconds()
		rolled.admitted = 0
		visit(rolled)
	})
	if len(states) != m.states {
		t.Errorf("%d distinct states instead of %d", len(states), m.states)
	}
	if got := most(states, func(f windowFleet) int { return f.admitted }); got != m.most {
		t.Errorf("a window admits up to %d units instead of %d", got, m.most)
	}
}
