package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// op is a member of a batch.
func op(key string, t throttlekit.Transition, cost float64) throttlekit.Op {
	return throttlekit.Op{Key: key, Transition: t, Cost: cost}
}

// batchEachInOrder: ops are answered in their order, and see each other's effect on one key.
func batchEachInOrder(f *fixture) {
	f.apply("b", lasting, 10)
	decisions := f.batch(throttlekit.CommitEach,
		op("a", lasting, 1), op("b", lasting, 5), op("a", lasting, 2), op("c", reader{}, 1), op("a", lasting, 4), op("a", reader{}, 1))
	for i, want := range []int64{1, 15, 3, 0, 7, 7} {
		if got := decisions[i].Remaining; got != want {
			f.Errorf("op %d answers %d, want %d", i, got, want)
		}
	}
	f.expect("a", 7, "after the batch")
	f.expect("b", 15, "after the batch")
}

// batchEachIndependent: of many strategies in one batch each is charged as on its own, whatever the others decide.
func batchEachIndependent(f *fixture) {
	var ops []throttlekit.Op
	for _, s := range strategies(10) {
		rule := f.rule(s.strategy)
		ops = append(ops, op(s.name, rule, 4), op(s.name, rule, 7), op(s.name, rule, 6))
	}
	decisions := f.batch(throttlekit.CommitEach, ops...)
	for i, s := range strategies(10) {
		d := decisions[3*i : 3*i+3]
		if !d[0].Allowed || d[0].Remaining != 6 || d[1].Allowed || d[1].Remaining != 6 || !d[2].Allowed || d[2].Remaining != 0 {
			f.Errorf("%s answers 4, 7 and 6 of 10 with %+v", s.name, d)
		}
	}
}

// batchEmpty: no ops, no decisions, no error.
func batchEmpty(f *fixture) {
	f.batch(throttlekit.CommitEach)
	if f.atomic(f.partner()) {
		f.batch(throttlekit.CommitAll)
		f.batch(throttlekit.CommitAny)
	}
}

// refuses fails the case unless the store refuses an atomic batch as unsupported and charges nothing.
func (f *fixture) refuses(commit throttlekit.Commit, ops ...throttlekit.Op) {
	f.Helper()
	_, err := f.Store.Batch(f.ctx, ops, commit)
	if !errors.Is(err, throttlekit.ErrUnsupported) {
		f.Errorf("the harness says that the store cannot run this batch, which answers %v, want ErrUnsupported", err)
	}
	for _, o := range ops {
		if rec := f.load(o.Key, o.Transition); !isZero(rec) {
			f.Errorf("the refused batch charged %+v under %q", rec, o.Key)
		}
	}
}

// partner is a window of one unit, which shares atomic batches with other strategies.
func (f *fixture) partner() throttlekit.Rule {
	f.Helper()
	return f.rule(strategy("fixedWindow", 1))
}

// batchAll: a batch that one member denies charges nobody, one that all allow charges everybody.
func batchAll(name string) func(*fixture) {
	return func(f *fixture) {
		rule, tight := f.rule(strategy(name, 10)), f.partner()
		if !f.atomic(rule, tight) {
			f.refuses(throttlekit.CommitAll, op("free", rule, 3), op("tight", tight, 1))
			return
		}
		f.apply("used", rule, 2)
		f.apply("tight", tight, 1)
		f.chargesNothing(op("free", rule, 3), op("used", rule, 3), op("tight", tight, 1))
		f.chargesNothing(op("tight", tight, 1), op("used", rule, 3), op("free", rule, 3))
		f.chargesNothing(op("used", rule, 3), op("free", rule, 11))
		decisions := f.batch(throttlekit.CommitAll, op("used", rule, 3), op("other", tight, 1), op("free", rule, 4))
		for i, want := range []int64{5, 0, 6} {
			if d := decisions[i]; !d.Allowed || d.Remaining != want {
				f.Errorf("op %d of an admitted batch answers %+v, want %d left", i, d, want)
			}
		}
		f.leaves("used", rule, 5)
		f.leaves("free", rule, 6)
		f.leaves("other", tight, 0)
	}
}

// chargesNothing fails the case unless CommitAll leaves every record of the batch as it
// was, although each member says for itself what it would do: deny for "tight" and for
// more than 10, and allow otherwise.
func (f *fixture) chargesNothing(ops ...throttlekit.Op) {
	f.Helper()
	records := func() (all []string) {
		for _, o := range ops {
			all = append(all, f.record(o.Key, o.Transition))
		}
		return all
	}
	before := records()
	for i, d := range f.batch(throttlekit.CommitAll, ops...) {
		if want := ops[i].Key != "tight" && ops[i].Cost <= 10; d.Allowed != want {
			f.Errorf("op %d on %q decides %+v for itself, want allowed %t", i, ops[i].Key, d, want)
		}
	}
	if after := records(); !slices.Equal(after, before) {
		f.Errorf("a denied batch changed records from %q to %q", before, after)
	}
}

// leaves fails the case unless exactly want units are left under key. It uses them up.
func (f *fixture) leaves(key string, rule throttlekit.Rule, want int64) {
	f.Helper()
	if d := f.apply(key, rule, float64(want+1)); d.Allowed || d.Remaining != want {
		f.Errorf("%d units under %q are answered with %+v, want %d left", want+1, key, d, want)
	}
	if want == 0 {
		return
	}
	if d := f.apply(key, rule, float64(want)); !d.Allowed {
		f.Errorf("%d units under %q are answered with %+v, want them admitted", want, key, d)
	}
}

// batchAny: a batch charges those members that allow, and no others.
func batchAny(name string) func(*fixture) {
	return func(f *fixture) {
		rule, tight := f.rule(strategy(name, 10)), f.partner()
		if !f.atomic(rule, tight) {
			f.refuses(throttlekit.CommitAny, op("free", rule, 3), op("tight", tight, 1))
			return
		}
		f.apply("tight", tight, 1)
		full := f.record("tight", tight)
		decisions := f.batch(throttlekit.CommitAny,
			op("tight", tight, 1), op("free", rule, 3), op("greedy", rule, 11), op("other", tight, 1))
		for i, want := range []bool{false, true, false, true} {
			if d := decisions[i]; d.Allowed != want {
				f.Errorf("op %d answers %+v, want allowed %t", i, d, want)
			}
		}
		if got := f.record("tight", tight); got != full {
			f.Errorf("the batch changed a denying record from %s to %s", full, got)
		}
		if rec := f.load("greedy", rule); !isZero(rec) {
			f.Errorf("the batch charged a fresh key that denies: %+v", rec)
		}
		f.leaves("free", rule, 7)
		f.leaves("other", tight, 0)
	}
}

// batchDuplicatesRefused: an atomic batch that names a key twice is invalid and charges nothing.
func batchDuplicatesRefused(f *fixture) {
	rule := f.rule(strategy("fixedWindow", 10))
	for _, commit := range []throttlekit.Commit{throttlekit.CommitAll, throttlekit.CommitAny} {
		if !f.atomic(rule) {
			f.refuses(commit, op("a", rule, 1), op("b", rule, 1))
			continue
		}
		_, err := f.Store.Batch(f.ctx, []throttlekit.Op{op("a", rule, 1), op("b", rule, 1), op("a", rule, 1)}, commit)
		if !errors.Is(err, throttlekit.ErrInvalid) {
			f.Errorf("a batch with the same key twice answers %v, want ErrInvalid", err)
		}
		for _, key := range []string{"a", "b"} {
			if rec := f.load(key, rule); !isZero(rec) {
				f.Errorf("the refused batch charged %q: %+v", key, rec)
			}
		}
	}
}

// batchGrowth: atomic batches of an old key and a new one, many times over.
func batchGrowth(f *fixture) {
	const n = 150
	rule := f.rule(strategy("gcra", 10*n))
	if !f.atomic(rule) {
		f.Skip("the store has no atomic batches")
	}
	for i := range n {
		d := f.batch(throttlekit.CommitAll, op("all", rule, 1), op(fmt.Sprintf("user %d", i), rule, 1))
		if want := int64(10*n - i - 1); d[0].Remaining != want || d[1].Remaining != 10*n-1 {
			f.Fatalf("batch %d answers %+v, want %d and %d left", i, d, want, 10*n-1)
		}
	}
}

// batchAgainstApply: batches that lock their keys in opposite orders, and single ops on
// the same keys, all at once: nobody waits for ever, and nothing is lost.
func batchAgainstApply(f *fixture) {
	const n = 120
	rule := f.rule(strategy("fixedWindow", 10*n))
	if !f.atomic(rule) {
		f.Skip("the store has no atomic batches")
	}
	f.together(n, func(i int, store throttlekit.Store) error {
		ops := []throttlekit.Op{op("a", rule, 1), op("b", rule, 1), op("c", rule, 1)}
		var err error
		switch i % 3 {
		case 0:
			_, err = store.Batch(f.ctx, ops, throttlekit.CommitAll)
		case 1:
			_, err = store.Batch(f.ctx, []throttlekit.Op{ops[2], ops[1], ops[0]}, throttlekit.CommitAny)
		default:
			for _, o := range ops {
				if _, err = store.Apply(f.ctx, o.Key, o.Transition, o.Cost); err != nil {
					break
				}
			}
		}
		return err
	})
	for _, key := range []string{"a", "b", "c"} {
		f.leaves(key, rule, 9*n)
	}
}

// combine is throttlekit.All or throttlekit.Any.
type combine func([]throttlekit.Dimension, ...throttlekit.Option) (*throttlekit.MultiLimiter, error)

// rush sends 100 concurrent checks, which cost 1 of a user's limit and 2 of an address',
// through limiters on the store, and counts what they admit.
func (f *fixture) rush(combine combine, user, address float64) int64 {
	f.Helper()
	dimensions := []throttlekit.Dimension{
		{Name: "user", Strategy: strategy("gcra", user)},
		{Name: "address", Strategy: strategy("fixedWindow", address), Weight: 2},
	}
	keys := throttlekit.Keys{"user": "u", "address": "10.0.0.1"}
	var allowed atomic.Int64
	f.together(100, func(_ int, store throttlekit.Store) error {
		m, err := combine(dimensions, throttlekit.WithStore(store), throttlekit.WithPrefix("multi"))
		if err != nil {
			return err
		}
		d, err := m.Check(f.ctx, keys, 1)
		if d.Allowed {
			allowed.Add(1)
		}
		return err
	})
	return allowed.Load()
}

// allLimiter: concurrent checks of All admit what the narrowest dimension does, and charge no more anywhere.
func allLimiter(f *fixture) {
	user, address := f.rule(strategy("gcra", 60)), f.rule(strategy("fixedWindow", 50))
	if !f.atomic(user, address) {
		f.Skip("the store has no atomic batches")
	}
	if got := f.rush(throttlekit.All, 60, 50); got != 25 {
		f.Errorf("100 checks at once admit %d, want 25", got)
	}
	f.leaves("multi:user:u", user, 35)
	f.leaves("multi:address:10.0.0.1", address, 0)
}

// anyLimiter: concurrent checks of Any admit what the widest dimension does, and charge each as far as it goes.
func anyLimiter(f *fixture) {
	user, address := f.rule(strategy("gcra", 40)), f.rule(strategy("fixedWindow", 21))
	if !f.atomic(user, address) {
		f.Skip("the store has no atomic batches")
	}
	if got := f.rush(throttlekit.Any, 40, 21); got != 40 {
		f.Errorf("100 checks at once admit %d, want 40", got)
	}
	f.leaves("multi:user:u", user, 0)
	f.leaves("multi:address:10.0.0.1", address, 1)
}

// checkMany: a limiter's checks of many keys at once, one of them twice.
func checkMany(f *fixture) {
	l := f.limiter(strategy("tokenBucket", 3), throttlekit.WithPrefix("many"))
	decisions, err := l.CheckMany(f.ctx, []string{"a", "b", "a", "c", "a"}, 1.5)
	if err != nil || len(decisions) != 5 {
		f.Fatalf("CheckMany answers %+v, %v", decisions, err)
	}
	for i, want := range []bool{true, true, true, true, false} {
		if decisions[i].Allowed != want {
			f.Errorf("key %d is answered with %+v, want allowed %t", i, decisions[i], want)
		}
	}
}
