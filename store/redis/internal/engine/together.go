package engine

import (
	"context"
	"fmt"
	"strconv"

	"github.com/throttlekit/throttlekit-go"
)

// atomicBatch is a batch that runs as one script.
type atomicBatch struct {
	ops    []throttlekit.Op
	keys   []string // full keys, in the order of ops
	plans  []*plan  // nil for a transition without a script
	custom []int    // ops without a script
	mode   string
}

// together runs ops as one atomic step.
func (s *Store) together(ctx context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	if len(ops) == 0 {
		return []throttlekit.Decision{}, nil
	}
	b, err := s.newAtomicBatch(ops, commit)
	if err != nil {
		return nil, err
	}
	if err := s.colocated(ctx, b.keys); err != nil {
		return nil, err
	}
	if len(b.custom) > 0 {
		return s.togetherHere(ctx, b)
	}
	decisions, changed, err := s.settle(ctx, b, s.now(), nil)
	if err == nil && changed {
		err = errReply
	}
	return decisions, err
}

func (s *Store) newAtomicBatch(ops []throttlekit.Op, commit throttlekit.Commit) (*atomicBatch, error) {
	b := &atomicBatch{ops: ops, keys: make([]string, len(ops)), plans: make([]*plan, len(ops)), mode: "0"}
	if commit == throttlekit.CommitAll {
		b.mode = "1"
	}
	seen := make(map[string]bool, len(ops))
	for i, op := range ops {
		if seen[op.Key] {
			return nil, &throttlekit.InvalidError{Field: "keys", Value: op.Key, Rule: "must be distinct in an atomic batch"}
		}
		seen[op.Key] = true
		b.keys[i], b.plans[i] = s.prefix+op.Key, s.plans.of(op.Transition)
		switch {
		case b.plans[i] == nil:
			b.custom = append(b.custom, i)
		case b.plans[i].kind.id == "":
			return nil, fmt.Errorf("%w: a %s transition runs as a script of its own, which cannot be part of an atomic batch",
				throttlekit.ErrUnsupported, op.Transition.Name())
		}
	}
	return b, nil
}

// colocated makes sure that a script may touch all keys.
func (s *Store) colocated(ctx context.Context, keys []string) error {
	sharding, err := s.client.Sharding(ctx)
	if err != nil || sharding == Whole {
		return err
	}
	for _, key := range keys[1:] {
		if sharding == BySlot && slot(key) != slot(keys[0]) || sharding == ByTag && tag(key) != tag(keys[0]) {
			return errCrossSlot
		}
	}
	return nil
}

// settle runs the script. With given decisions, it reports whether one of their records has changed.
func (s *Store) settle(ctx context.Context, b *atomicBatch, now string, given map[int]*given) ([]throttlekit.Decision, bool, error) {
	args := append(make([]string, 0, 4+8*len(b.ops)), now, b.mode, strconv.Itoa(len(b.ops)))
	for i, op := range b.ops {
		if b.plans[i] != nil {
			args = b.plans[i].together(args, op.Cost)
		} else {
			args = given[i].together(args)
		}
	}
	reply, err := s.eval(ctx, Call{
		Script: scriptTogether, Key: b.keys[0], Keys: b.keys[1:], Args: append(args, s.least),
	})
	if err != nil {
		return nil, false, err
	}
	v := reply.Ints()
	switch {
	case len(v) == 0 && given != nil:
		return nil, true, nil
	case len(v) != 5*len(b.ops):
		return nil, false, fmt.Errorf("%w: %d integers for %d keys", errReply, len(v), len(b.ops))
	}
	decisions := make([]throttlekit.Decision, len(b.ops))
	for i := range b.ops {
		if b.plans[i] != nil {
			decisions[i] = decision(v[5*i : 5*i+5])
		} else {
			decisions[i] = given[i].decision
		}
	}
	return decisions, false, nil
}
