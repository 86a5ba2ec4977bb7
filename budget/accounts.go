package budget

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/throttlekit/throttlekit-go"
)

// Config says where the accounts of a budget are.
type Config struct {
	// Budget is what each key may spend. It is required.
	Budget *Budget
	// Store keeps the accounts, for several processes. Several levels need a store with atomic
	// batches. Defaults to this process.
	Store throttlekit.Store
	// Prefix stores every key as "prefix:key"; one level with one window adds nothing to that.
	Prefix string
	// MaxKeys bounds the accounts that this process keeps for each level; a new key beyond them is
	// refused with an error that matches ErrStoreFull of package throttlekit. Defaults to 100,000. A
	// Store has its own bound.
	MaxKeys int
	// Clock is the time of the accounts in this process. Defaults to the system's. A Store has its own.
	Clock throttlekit.Clock
}

const defaultMaxKeys = 100_000

// accounts are those of a budget, in this process or on a store.
type accounts struct {
	levels []*level
	frames []atomic.Pointer[[]frame] // of each level, around the latest instant that needed others
	tables []*table                  // nil on a store
	store  throttlekit.Store
	prefix string
	bare   bool              // keys stand alone behind the prefix
	clock  throttlekit.Clock // nil for the system's
	closed atomic.Bool
}

func newAccounts(config Config) (*accounts, error) {
	if config.Budget == nil {
		return nil, &throttlekit.InvalidError{Field: "budget", Value: nil, Rule: "must be given"}
	}
	levels, err := config.Budget.levels()
	if err != nil {
		return nil, err
	}
	var f faults
	f.require(config.MaxKeys >= 0, "maxKeys", config.MaxKeys, "must not be negative")
	f.require(config.Store == nil || config.Clock == nil, "clock", config.Clock,
		"must not be given together with a store, whose own clock counts")
	if len(f) > 0 {
		return nil, joined(f)
	}
	a := &accounts{levels: levels, store: config.Store, clock: config.Clock, frames: make([]atomic.Pointer[[]frame], len(levels))}
	a.bare = len(levels) == 1 && len(levels[0].windows) == 1
	if config.Prefix != "" {
		a.prefix = config.Prefix + ":"
	}
	if config.MaxKeys == 0 {
		config.MaxKeys = defaultMaxKeys
	}
	for i, l := range levels {
		frames := l.frames(0)
		a.frames[i].Store(&frames)
		if a.store == nil {
			a.tables = append(a.tables, newTable(l.windows, config.MaxKeys))
		}
	}
	return a, nil
}

// name is the store's key of a key at a level. Several levels are one atomic step on a store that
// shards by hash tags only if the keys bring tags that agree; they are kept.
func (a *accounts) name(level int, key string) string {
	if a.bare {
		return a.prefix + key
	}
	if _, tagged, found := strings.Cut(key, "{"); found && strings.Index(tagged, "}") > 0 {
		return a.prefix + a.levels[level].name + ":#" + key
	}
	return a.prefix + a.levels[level].name + ":{=" + key + "}"
}

// Steps that are all or nothing over the levels charge; the others are each on their own.
func (s *step) together() bool { return s.op == opDebit || s.op == opFit || s.op == opAdmit }

// reframe makes frames of a level that reach an instant, also for those who come later.
func (a *accounts) reframe(level int, nowMillis int64) []frame {
	frames := a.levels[level].frames(nowMillis)
	a.frames[level].Store(&frames)
	return frames
}

// frameAttempts bounds how often a step is tried with other frames.
const frameAttempts = 4

// run makes a step on the accounts of a key at all levels, and writes the decisions of the levels
// to each. hints are where the reservation was last seen at each level, or nil.
func (a *accounts) run(ctx context.Context, key string, s *step, each []throttlekit.Decision, hints []int) error {
	if a.closed.Load() {
		return throttlekit.ErrClosed
	}
	if a.store == nil {
		return a.runHere(key, s, each, hints)
	}
	return a.runThere(ctx, key, *s, each)
}

func (a *accounts) now() int64 {
	if a.clock == nil {
		return throttlekit.SystemClock{}.NowMillis()
	}
	return a.clock.NowMillis()
}

// runHere makes a step in this process.
func (a *accounts) runHere(key string, s *step, each []throttlekit.Decision, hints []int) error {
	now := a.now()
	s.now = now
	if len(a.levels) > 1 || s.resets != nil {
		return a.runUp(0, key, s, float64(now), each, hints)
	}
	c, err := a.tables[0].lock(key, float64(now))
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	if at := a.decide(c, 0, s, float64(now), each, hints); each[0].Allowed {
		c.finish(0, s, float64(now), at, hints)
	}
	return nil
}

// runUp makes a step at a level and those above it, all of which stay locked until it is done. Locks are taken
// level by level, and one at each, so nobody waits in a circle.
func (a *accounts) runUp(level int, key string, whole *step, now float64, each []throttlekit.Decision, hints []int) error {
	c, err := a.tables[level].lock(key, now)
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	s := whole.at(level)
	at := a.decide(c, level, &s, now, each, hints)
	if level+1 < len(a.levels) {
		if err := a.runUp(level+1, a.levels[level].above(key), whole, now, each, hints); err != nil {
			return err
		}
	}
	if !s.together() && each[level].Allowed || s.together() && everyAllows(each) {
		c.finish(level, &s, now, at, hints)
	}
	return nil
}

func everyAllows(each []throttlekit.Decision) bool {
	for i := range each {
		if !each[i].Allowed {
			return false
		}
	}
	return true
}

// decide decides at one level, whose account is locked.
func (a *accounts) decide(c *cell, level int, s *step, now float64, each []throttlekit.Decision, hints []int) int {
	s.frames = *a.frames[level].Load()
	if reach, known := c.place(s.frames, now); !known {
		s.frames = a.reframe(level, int64(reach))
		c.place(s.frames, now)
	}
	hint := 0
	if hints != nil {
		hint = hints[level]
	}
	at := c.find(s, hint, now)
	c.decide(s, now, at, &each[level])
	return at
}

// finish makes a step at one level that was allowed, and remembers where the reservation is.
func (c *cell) finish(level int, s *step, now float64, at int, hints []int) {
	c.commit(s, now, at)
	if hints != nil {
		hints[level] = at
		if s.op == opAdmit {
			hints[level] = len(c.live) - 1
		}
	}
}

// runThere makes a step on the store. A level whose frames did not reach the store's time tells it,
// and is asked once more.
func (a *accounts) runThere(ctx context.Context, key string, s step, each []throttlekit.Decision) error {
	ops := make([]throttlekit.Op, len(a.levels))
	pending := make([]int, len(a.levels))
	frames := make([][]frame, len(a.levels))
	for i := range a.levels {
		if i > 0 {
			key = a.levels[i-1].above(key)
		}
		ops[i].Key, ops[i].Cost, pending[i], frames[i] = a.name(i, key), s.cost, i, *a.frames[i].Load()
	}
	commit := throttlekit.CommitEach
	if s.together() {
		commit = throttlekit.CommitAll
	}
	for range frameAttempts {
		asked := make([]throttlekit.Op, len(pending))
		for i, level := range pending {
			with := s.at(level)
			with.frames = frames[level]
			ops[level].Transition = &with
			asked[i] = ops[level]
		}
		decisions, err := a.apply(ctx, asked, commit)
		if err != nil {
			return err
		}
		var again []int
		for i, level := range pending {
			each[level] = decisions[i]
			if isOutside(decisions[i]) {
				frames[level] = a.reframe(level, decisions[i].ResetAtMillis)
				again = append(again, level)
			}
		}
		if len(again) == 0 {
			return nil
		}
		if commit == throttlekit.CommitEach {
			pending = again
		}
	}
	return fmt.Errorf("%w: its clock moves too fast", throttlekit.ErrStoreUnavailable)
}

func (a *accounts) apply(ctx context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	if len(ops) == 1 {
		d, err := a.store.Apply(ctx, ops[0].Key, ops[0].Transition, ops[0].Cost)
		return []throttlekit.Decision{d}, err
	}
	return a.store.Batch(ctx, ops, commit)
}

// reset forgets a key at the first level.
func (a *accounts) reset(ctx context.Context, key string) error {
	switch {
	case a.closed.Load():
		return throttlekit.ErrClosed
	case a.store != nil:
		return a.store.Reset(ctx, a.name(0, key))
	}
	a.tables[0].reset(key)
	return nil
}

// Verdict is a decision and which window of which level it is that of.
type Verdict struct {
	throttlekit.Decision

	// Level and Window are the names of what bound: of a refusal the one that refuses for longest,
	// else the one with the least left. Window is empty if it was the number of reservations.
	Level, Window string
}

// verdict is the decision of the level that binds.
func (a *accounts) verdict(each []throttlekit.Decision) Verdict {
	level := binding(each)
	return a.verdictOf(level, &each[level])
}

// binding is the level that binds.
func binding(each []throttlekit.Decision) (level int) {
	for i := range each {
		if binds(&each[i], &each[level]) {
			level = i
		}
	}
	return level
}

func (a *accounts) verdictOf(level int, d *throttlekit.Decision) Verdict {
	l := a.levels[level]
	return Verdict{Decision: *d, Level: l.name, Window: l.named(d.Limit)}
}
