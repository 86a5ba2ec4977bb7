package budget

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// The tests named TestExplore go through every interleaving of what processes and holders of
// grants can do, with the real meter and the real grants and the constants of the model in
// spec/, and expect the same maxima and as many distinct states as the model checker found.

// rule is one of those that the bound rests on.
type rule int

const (
	none     rule = iota
	inPart        // a grant takes at most what is left
	itsOwn        // a holder meters at most what it holds
	inWindow      // what is given back counts only in the window that it came from
	lost          // what a holder was granted when it crashes stays counted
)

// grantModel is one row of the table of module TaleGrantedMeter.
type grantModel struct {
	holders, limit, largest, batch int
	broken                         rule
	states, most                   int
}

func (m grantModel) name() string {
	return fmt.Sprintf("holders=%d limit=%d largest=%d batch=%d broken=%d", m.holders, m.limit, m.largest, m.batch, m.broken)
}

const exploredWindow = time.Second

// fleet is a state: the store's record, what each holder has, and what was metered since the
// window rolled. The time is always that at which a window begins. It is a value.
type fleet struct {
	now     int64
	record  throttlekit.Record
	holders [3]holding
	metered int
}

// holding is one holder's part of a state.
type holding struct {
	held, spent int
	back        int   // on its way back
	from        int64 // the reset of what is
}

// reset is when the window ends that the state is in.
func (f *fleet) reset() int64 { return f.now + exploredWindow.Milliseconds() }

// fleetStore is a store that holds a state.
type fleetStore struct {
	throttlekit.Store

	fleet *fleet
}

func (s *fleetStore) Apply(_ context.Context, _ string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	next, d, ttl := t.Apply(s.fleet.record, s.fleet.now, cost)
	if ttl > 0 {
		s.fleet.record = next
	}
	return d, nil
}

// explorer goes through the states of one model.
type explorer struct {
	grantModel

	t     *testing.T
	store *fleetStore
	meter *Meter
}

func (m grantModel) explorer(t *testing.T) *explorer {
	t.Helper()
	store := &fleetStore{}
	meter, err := NewMeter(Config{Store: store, Budget: &Budget{Windows: []Window{{Limit: float64(m.limit), Width: exploredWindow}}}})
	if err != nil {
		t.Fatal(err)
	}
	return &explorer{grantModel: m, t: t, store: store, meter: meter}
}

// fleetKey is what the model keeps of a state.
type fleetKey struct {
	served, metered   int
	held, spent, back [3]int
	late              [3]bool
}

func (e *explorer) key(f fleet) fleetKey {
	k := fleetKey{metered: f.metered}
	if f.now < int64(f.record.A)+exploredWindow.Milliseconds() {
		k.served = int(f.record.B)
	}
	for i, h := range f.holders {
		k.held[i], k.spent[i], k.back[i] = h.held, h.spent, h.back
		k.late[i] = h.back > 0 && h.from != f.reset()
	}
	return k
}

// debit is one at the shared meter.
func (e *explorer) debit(f *fleet, tokens int) bool {
	e.store.fleet = f
	d, err := e.meter.Debit(e.t.Context(), "", int64(tokens))
	if err != nil {
		e.t.Fatal(err)
	}
	return d.Allowed
}

// refund gives tokens back that were granted in the window of a reset.
func (e *explorer) refund(f *fleet, tokens int, reset int64) {
	e.store.fleet = f
	source := &grants{accounts: e.meter.accounts, ends: reset, resets: []int64{reset}, drawn: int64(tokens)}
	if err := source.Return(e.t.Context(), "", int64(tokens), reset); err != nil {
		e.t.Fatal(err)
	}
}

// grant is a request for a batch.
func (e *explorer) grant(f *fleet, h *holding) bool {
	if h.held >= e.largest {
		return false
	}
	if e.broken == inPart {
		h.held += e.batch
		return e.debit(f, e.batch)
	}
	e.store.fleet = f
	g, err := (&grants{accounts: e.meter.accounts}).Lease(e.t.Context(), "", 1, int64(e.batch))
	if err != nil {
		e.t.Fatal(err)
	}
	if g.Units > 0 && (g.ResetAtMillis != f.reset() || g.Lasts != exploredWindow) {
		e.t.Errorf("a grant lasts for %v, to %d", g.Lasts, g.ResetAtMillis)
	}
	h.held += int(g.Units)
	return g.Units > 0
}

// take meters tokens from what a holder has.
func (e *explorer) take(f *fleet, h *holding, tokens int) bool {
	if h.held < tokens && (e.broken != itsOwn || h.held == 0) {
		return false
	}
	h.held = max(0, h.held-tokens)
	if e.broken == lost {
		h.spent += tokens
	}
	f.metered += tokens
	return true
}

// giveBack sends what a holder has on its way.
func (e *explorer) giveBack(f *fleet, h *holding) bool {
	if h.held == 0 || h.back > 0 {
		return false
	}
	h.back, h.held, h.from = h.held, 0, f.reset()
	return true
}

// arrive is when that reaches the store.
func (e *explorer) arrive(f *fleet, h *holding) bool {
	if e.broken == inWindow {
		h.from = f.reset()
	}
	e.refund(f, h.back, h.from)
	h.back, h.from = 0, 0
	return true
}

// crash loses what a holder has.
func (e *explorer) crash(f *fleet, h *holding) bool {
	if e.broken == lost {
		e.refund(f, h.held+h.spent, f.reset())
	}
	h.held, h.spent = 0, 0
	return true
}

// next visits every state that follows one.
func (e *explorer) next(f fleet, visit func(fleet)) {
	if f.metered > e.limit+e.largest-1 {
		return // seen enough
	}
	try := func(holder int, change func(f *fleet, h *holding) bool) {
		if next := f; change(&next, &next.holders[holder]) {
			visit(next)
		}
	}
	for n := 1; n <= e.largest; n++ {
		try(0, func(f *fleet, _ *holding) bool {
			f.metered += n
			return e.debit(f, n)
		})
	}
	for i := range e.holders {
		for n := 1; n <= e.largest; n++ {
			try(i, func(f *fleet, h *holding) bool { return e.take(f, h, n) })
		}
		for _, change := range []func(*fleet, *holding) bool{e.grant, e.giveBack, e.arrive, e.crash} {
			try(i, change)
		}
	}
	rolled := f
	rolled.now += exploredWindow.Milliseconds()
	rolled.metered = 0
	for i := range rolled.holders {
		rolled.holders[i].held, rolled.holders[i].spent = 0, 0
	}
	visit(rolled)
}

func TestExploreGrants(t *testing.T) {
	t.Parallel()
	for _, m := range []grantModel{
		{holders: 1, limit: 4, largest: 1, batch: 2, states: 83, most: 4},
		{holders: 2, limit: 4, largest: 1, batch: 2, states: 445, most: 4},
		{holders: 2, limit: 4, largest: 2, batch: 2, states: 908, most: 5},
		{holders: 2, limit: 4, largest: 3, batch: 2, states: 1619, most: 6},
		{holders: 2, limit: 5, largest: 2, batch: 3, states: 2195, most: 6},
		{holders: 3, limit: 4, largest: 2, batch: 2, states: 5536, most: 5},
		{holders: 2, limit: 4, largest: 1, batch: 2, broken: inPart},
		{holders: 2, limit: 4, largest: 2, batch: 2, broken: itsOwn},
		{holders: 2, limit: 4, largest: 2, batch: 2, broken: inWindow},
		{holders: 2, limit: 4, largest: 2, batch: 2, broken: lost},
	} {
		t.Run(m.name(), func(t *testing.T) {
			t.Parallel()
			m.explore(t)
		})
	}
}

func (m grantModel) explore(t *testing.T) {
	t.Helper()
	const tooMany = 100_000 // a key that tells too much apart
	e, first := m.explorer(t), fleet{}
	seen, most := map[fleetKey]bool{e.key(first): true}, 0
	for queue := []fleet{first}; len(queue) > 0; queue = queue[1:] {
		most = max(most, queue[0].metered)
		e.next(queue[0], func(f fleet) {
			if k := e.key(f); !seen[k] {
				seen[k] = true
				queue = append(queue, f)
			}
		})
		if len(seen) > tooMany {
			t.Fatalf("more than %d states", tooMany)
		}
	}
	if bound := m.limit + m.largest - 1; m.broken != none {
		if most <= bound {
			t.Errorf("a window meters up to %d tokens, which is within the bound, in %d states", most, len(seen))
		}
		return
	}
	if most != m.most {
		t.Errorf("a window meters up to %d tokens instead of %d", most, m.most)
	}
	if len(seen) != m.states {
		t.Errorf("%d distinct states instead of %d", len(seen), m.states)
	}
}

// gateModel is how requests are admitted to a budget of a few tokens. Each has an input of 1.
type gateModel struct {
	limit, requests int
	// expected is the most that a request is expected to produce, debit the most at once.
	expected, debit int
	// overrun lets requests produce more than was expected.
	overrun bool
	// alone admits what fits beside what is used, without a look at what others are expected to use.
	alone bool
	// most is how much a window meters, cut whether a request is refused what it wants to pass on.
	most int
	cut  bool
}

// gate is a state: the store's record and what is under way. It is a value, as records are.
type gate struct {
	now      int64
	record   throttlekit.Record
	requests [3]request
	metered  int
	cut      bool
}

type request struct {
	live               bool
	expected, produced int
}

// gateKey tells states apart.
type gateKey struct {
	served, metered int
	cut             bool
	requests        [3]request
	here            [3]int // charged in this window
}

const explored = "abc" // names of requests

func (m gateModel) key(g gate) gateKey {
	k := gateKey{metered: g.metered, cut: g.cut, requests: g.requests}
	if g.now < int64(g.record.A)+exploredWindow.Milliseconds() {
		k.served = int(g.record.B)
	}
	if more, ok := g.record.Extra.(*rest); ok {
		for _, r := range more.live {
			if c := r.charged[0]; int64(c.start) == g.now {
				k.here[r.id[0]-explored[0]] = int(c.served)
			}
		}
	}
	return k
}

// apply makes a step for a request, if it has a reservation.
func (m gateModel) apply(g *gate, request int, s step) throttlekit.Decision {
	s.frames = []frame{{limit: float64(m.limit), width: float64(exploredWindow.Milliseconds())}}
	s.lasts, s.id = 1e9, explored[request:request+1]
	if m.alone {
		s.id = ""
	}
	next, d, ttl := s.Apply(g.record, g.now, s.cost)
	if ttl > 0 {
		g.record = next
	}
	return d
}

func (m gateModel) admit(g *gate, i, expected int) bool {
	r := &g.requests[i]
	if r.live {
		return false
	}
	s := step{op: opAdmit, cost: 1, amount: float64(expected), extra: float64(m.requests)}
	if m.alone {
		if left := m.apply(g, i, step{op: opPeek, cost: 1}).Remaining; left < int64(1+expected) {
			return false
		}
		s.op = opDebit
	}
	*r = request{live: true, expected: expected}
	g.metered++
	return m.apply(g, i, s).Allowed
}

func (m gateModel) produce(g *gate, i, tokens int) bool {
	r := &g.requests[i]
	if !r.live || !m.overrun && r.produced+tokens > r.expected {
		return false
	}
	if !m.apply(g, i, step{op: opDebit, cost: float64(tokens)}).Allowed {
		g.cut = true
		return true
	}
	r.produced = min(r.produced+tokens, r.expected) // what is beyond makes no difference
	g.metered += tokens
	return true
}

// finish ends a request at what was metered.
func (m gateModel) finish(g *gate, i int) bool {
	if !g.requests[i].live {
		return false
	}
	g.requests[i] = request{}
	return m.alone || m.apply(g, i, step{op: opSettle, cost: 1, amount: -1, extra: -1}).Allowed
}

func (m gateModel) next(g gate, visit func(gate)) {
	if g.cut || g.metered > m.most {
		return // seen enough
	}
	try := func(change func(g *gate) bool) {
		if next := g; change(&next) {
			visit(next)
		}
	}
	for i := range m.requests {
		for n := range m.expected {
			try(func(g *gate) bool { return m.admit(g, i, n+1) })
		}
		for n := range m.debit {
			try(func(g *gate) bool { return m.produce(g, i, n+1) })
		}
		try(func(g *gate) bool { return m.finish(g, i) })
	}
	rolled := g
	rolled.now += exploredWindow.Milliseconds()
	rolled.metered = 0
	visit(rolled)
}

// kept reports whether the store knows what is under way: of each request, what is expected yet.
func (m gateModel) kept(g gate) bool {
	var live []reservation
	if more, ok := g.record.Extra.(*rest); ok {
		live = more.live
	}
	for _, r := range live {
		q := g.requests[r.id[0]-explored[0]]
		if !q.live || r.remainder != float64(q.expected-q.produced) {
			return false
		}
	}
	under := 0
	for _, q := range g.requests {
		if q.live {
			under++
		}
	}
	return m.alone || under == len(live)
}

// explore tells how many states there are, and what the worst of them is.
func (m gateModel) explore(t *testing.T) (states, most int, cut bool) {
	t.Helper()
	first := gate{}
	seen := map[gateKey]bool{m.key(first): true}
	for queue := []gate{first}; len(queue) > 0; queue = queue[1:] {
		most, cut = max(most, queue[0].metered), cut || queue[0].cut
		if !m.kept(queue[0]) {
			t.Fatalf("the store has lost track: %+v", queue[0])
		}
		m.next(queue[0], func(g gate) {
			if k := m.key(g); !seen[k] {
				seen[k] = true
				queue = append(queue, g)
			}
		})
	}
	return len(seen), most, cut
}

// TestExploreReservations goes through what requests can do that are admitted by what is expected
// of them. If none uses more than that, none is cut.
func TestExploreReservations(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]gateModel{
		"as expected":        {limit: 6, requests: 3, expected: 3, debit: 2, most: 6},
		"two, in one go":     {limit: 7, requests: 2, expected: 4, debit: 4, most: 7},
		"more than expected": {limit: 5, requests: 2, expected: 2, debit: 3, overrun: true, most: 7, cut: true},
		"no look at others":  {limit: 6, requests: 2, expected: 4, debit: 1, alone: true, most: 6, cut: true},
		"no others":          {limit: 6, requests: 1, expected: 4, debit: 1, alone: true, most: 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			states, most, cut := m.explore(t)
			if most != m.most {
				t.Errorf("a window meters up to %d tokens instead of %d, in %d states", most, m.most, states)
			}
			if cut != m.cut {
				t.Errorf("whether a request is cut: %t, in %d states", cut, states)
			}
		})
	}
}
