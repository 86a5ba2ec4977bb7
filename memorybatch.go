package throttlekit

import (
	"cmp"
	"slices"
)

// member is one op of an atomic batch, whatever the layout of its record. The batch
// holds the mutexes of all its shards, in one global order, and then those of its
// entries; since every other operation holds at most one of each, none can deadlock.
type member interface {
	lane() (shape Shape, shard int)
	lockShard()
	unlockShard()
	// open locks the entry, if there is one, and returns its record. The shard is locked.
	open(nowMillis int64) Record
	// missing reports whether there is no entry yet.
	missing() bool
	// commit stores the record. Room for a missing entry has been reserved.
	commit(next Record, nowMillis, ttlMillis int64)
	close()
}

type tableMember[S layout] struct {
	shape Shape
	table *table[S]
	shard *shard[S]
	hash  uint64
	key   string
	entry *entry[S]
}

func (t *table[S]) member(key string, shape Shape) member {
	s, h := t.locate(key)
	return &tableMember[S]{shape: shape, table: t, shard: s, hash: h, key: key}
}

func (m *tableMember[S]) lane() (Shape, int) { return m.shape, int(m.hash >> m.table.shift) }
func (m *tableMember[S]) lockShard()         { m.shard.mu.Lock() }
func (m *tableMember[S]) unlockShard()       { m.shard.mu.Unlock() }
func (m *tableMember[S]) missing() bool      { return m.entry == nil }

func (m *tableMember[S]) open(nowMillis int64) Record {
	m.entry = m.table.find(m.shard, m.hash, m.key)
	if m.entry == nil {
		return Record{}
	}
	m.entry.mu.Lock()
	return m.entry.get(nowMillis)
}

func (m *tableMember[S]) commit(next Record, nowMillis, ttlMillis int64) {
	if m.entry != nil {
		m.entry.put(next, nowMillis, ttlMillis)
		return
	}
	m.table.insert(m.shard, m.hash, newEntry[S](m.key, next, nowMillis, ttlMillis), nowMillis)
}

func (m *tableMember[S]) close() {
	if m.entry != nil {
		m.entry.mu.Unlock()
		m.entry = nil
	}
}

// applyTogether runs the ops as one atomic step.
func (m *MemoryStore) applyTogether(ops []Op, commit Commit, nowMillis int64) ([]Decision, error) {
	if err := distinct(ops); err != nil {
		return nil, err
	}
	members := make([]member, len(ops))
	for i, op := range ops {
		shape := op.Transition.Shape()
		members[i] = m.records(shape).member(op.Key, shape)
	}
	unlock := lockShards(members)
	defer unlock()
	if m.closed.Load() {
		return nil, ErrClosed
	}
	return m.settle(ops, members, commit, nowMillis)
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

// lockShards locks every shard that the members touch, each once and in order.
func lockShards(members []member) (unlock func()) {
	sorted := slices.SortedFunc(slices.Values(members), compareLanes)
	sorted = slices.CompactFunc(sorted, func(a, b member) bool { return compareLanes(a, b) == 0 })
	for _, m := range sorted {
		m.lockShard()
	}
	return func() {
		for _, m := range sorted {
			m.unlockShard()
		}
	}
}

func compareLanes(a, b member) int {
	shapeA, shardA := a.lane()
	shapeB, shardB := b.lane()
	return cmp.Or(cmp.Compare(shapeA, shapeB), cmp.Compare(shardA, shardB))
}

// settle decides all ops and commits what the mode allows. The shards are locked.
func (m *MemoryStore) settle(ops []Op, members []member, commit Commit, nowMillis int64) ([]Decision, error) {
	decisions, next, ttls := make([]Decision, len(ops)), make([]Record, len(ops)), make([]int64, len(ops))
	allowed := true
	for i, op := range ops {
		defer members[i].close()
		next[i], decisions[i], ttls[i] = op.Transition.Apply(members[i].open(nowMillis), nowMillis, op.Cost)
		allowed = allowed && decisions[i].Allowed
	}
	if commit == CommitAll && !allowed {
		return decisions, nil
	}
	if err := m.reserveMissing(members, ttls); err != nil {
		return nil, err
	}
	for i, member := range members {
		if ttls[i] > 0 {
			member.commit(next[i], nowMillis, ttls[i])
		}
	}
	m.scheduleSweep()
	return decisions, nil
}

// reserveMissing counts in the entries that the batch will add. In a full store that
// admits without state, their ttls become 0 instead, so that they are not kept.
func (m *MemoryStore) reserveMissing(members []member, ttls []int64) error {
	var missing []int
	for i, member := range members {
		if ttls[i] > 0 && member.missing() {
			missing = append(missing, i)
		}
	}
	n := int64(len(missing))
	if m.size.Add(n) <= m.maxKeys || m.maxKeys == 0 {
		return nil
	}
	m.size.Add(-n)
	for _, i := range missing {
		ttls[i] = 0
	}
	return m.fullError()
}
