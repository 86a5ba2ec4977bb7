package throttlekit

import (
	"context"
	"slices"
)

// Batch implements [Store].
func (m *MemoryStore) Batch(_ context.Context, ops []Op, commit Commit) ([]Decision, error) {
	now := m.clock.NowMillis()
	if commit == CommitEach {
		return m.applyEach(ops, now)
	}
	if err := distinct(ops); err != nil {
		return nil, err
	}
	decisions, err := m.applyTogether(ops, commit, now)
	if isFull(err) && m.makeRoom(now) {
		return m.applyTogether(ops, commit, now)
	}
	return decisions, err
}

func (m *MemoryStore) applyEach(ops []Op, nowMillis int64) ([]Decision, error) {
	decisions := make([]Decision, len(ops))
	for i, op := range ops {
		if err := m.apply(op.Key, op.Transition, nowMillis, op.Cost, &decisions[i]); err != nil {
			return nil, err
		}
	}
	return decisions, nil
}

// distinct makes sure that no two ops of an atomic batch share a key.
func distinct(ops []Op) error {
	seen := make(map[string]bool, len(ops))
	for _, op := range ops {
		if seen[op.Key] {
			return &InvalidError{Field: "keys", Value: op.Key, Rule: "must be distinct in an atomic batch"}
		}
		seen[op.Key] = true
	}
	return nil
}

// outcome is what one op of an atomic batch came to.
type outcome struct {
	hash  uint64
	entry *entry // nil if the key has none
	next  Record
	ttl   int64
}

// applyTogether runs the ops as one atomic step, under the locks of all their shards.
// Those are taken in order, and every other operation holds at most one, so nobody
// waits in a circle.
func (m *MemoryStore) applyTogether(ops []Op, commit Commit, nowMillis int64) ([]Decision, error) {
	outcomes := make([]outcome, len(ops))
	for i, op := range ops {
		outcomes[i].hash = m.hash(op.Key)
	}
	defer m.lock(outcomes)()
	if m.closed.Load() {
		return nil, ErrClosed
	}
	decisions := make([]Decision, len(ops))
	allowed := true
	for i, op := range ops {
		o := &outcomes[i]
		var rec Record
		if o.entry = m.shards[o.hash>>m.shift].table.find(o.hash, op.Key); o.entry != nil {
			rec = o.entry.record(nowMillis)
		}
		o.next, decisions[i], o.ttl = op.Transition.Apply(rec, nowMillis, op.Cost)
		allowed = allowed && decisions[i].Allowed
	}
	if commit == CommitAll && !allowed {
		return decisions, nil
	}
	return decisions, m.commit(ops, outcomes, nowMillis)
}

// lock locks the shards of all outcomes, each once and in order.
func (m *MemoryStore) lock(outcomes []outcome) (unlock func()) {
	shards := make([]uint64, len(outcomes))
	for i, o := range outcomes {
		shards[i] = o.hash >> m.shift
	}
	slices.Sort(shards)
	shards = slices.Compact(shards)
	for _, i := range shards {
		m.shards[i].mu.Lock()
	}
	return func() {
		for _, i := range shards {
			m.shards[i].mu.Unlock()
		}
	}
}

// commit persists the outcomes that ask for it: all of them, or none if there is no
// room for their new entries. The shards are locked.
func (m *MemoryStore) commit(ops []Op, outcomes []outcome, nowMillis int64) error {
	fresh := 0
	for _, o := range outcomes {
		if o.entry == nil && o.ttl > 0 {
			fresh++
		}
	}
	full := m.reserve(fresh)
	if full != nil && !m.forgives(full) {
		return full
	}
	for _, o := range outcomes { // first, since an insertion may drop entries that have expired
		if o.entry != nil && o.ttl > 0 {
			o.entry.put(o.next, nowMillis, o.ttl)
		}
	}
	for i, o := range outcomes {
		if o.entry == nil && o.ttl > 0 && full == nil {
			m.insert(&m.shards[o.hash>>m.shift], o.hash, newEntry(ops[i].Key, o.next, nowMillis, o.ttl), nowMillis)
		}
	}
	return nil
}
