package engine

import (
	"context"
	"fmt"

	"github.com/throttlekit/throttlekit-go"
)

// Batch implements [throttlekit.Store].
func (s *Store) Batch(ctx context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	for _, op := range ops {
		if err := validCost(op.Cost); err != nil {
			return nil, err
		}
	}
	inner, cancel, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	var decisions []throttlekit.Decision
	switch commit {
	case throttlekit.CommitEach:
		decisions, err = s.each(inner, ops)
	case throttlekit.CommitAll, throttlekit.CommitAny:
		decisions, err = s.together(inner, ops, commit)
	default:
		err = fmt.Errorf("%w: commit mode %d", throttlekit.ErrUnsupported, commit)
	}
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return decisions, nil
}

// each pipelines the ops that have a script; the others follow one by one.
func (s *Store) each(ctx context.Context, ops []throttlekit.Op) ([]throttlekit.Decision, error) {
	decisions := make([]throttlekit.Decision, len(ops))
	pipeline := s.newPipeline(ops)
	outcomes := s.evalEach(ctx, pipeline.calls)
	for i := range outcomes {
		if outcomes[i].Err != nil {
			return nil, outcomes[i].Err
		}
		var err error
		if decisions[pipeline.ops[i]], err = pipeline.plans[i].decision(&outcomes[i].Reply); err != nil {
			return nil, err
		}
	}
	for _, i := range pipeline.rest {
		var err error
		if decisions[i], err = s.applyHere(ctx, s.prefix+ops[i].Key, ops[i].Transition, ops[i].Cost); err != nil {
			return nil, err
		}
	}
	return decisions, nil
}

// pipeline is a batch on its way: call i is that of op ops[i].
type pipeline struct {
	calls []Call
	plans []*plan
	ops   []int
	rest  []int // ops without a script
}

func (s *Store) newPipeline(ops []throttlekit.Op) pipeline {
	p := pipeline{
		calls: make([]Call, 0, len(ops)), plans: make([]*plan, 0, len(ops)), ops: make([]int, 0, len(ops)),
	}
	now := s.now()
	seen := make(map[string]int, len(ops))
	for i, op := range ops {
		plan := s.plans.of(op.Transition)
		if plan == nil {
			p.rest = append(p.rest, i)
			continue
		}
		call := Call{Script: plan.kind.Script, Key: s.prefix + op.Key, Args: plan.args(now, op.Cost)}
		// Calls on one key must run in order. If they went by digest and one of them found
		// its script missing, those behind it could run first; texts are never missing.
		if first, ok := seen[call.Key]; ok {
			call.Whole, p.calls[first].Whole = true, true
		} else {
			seen[call.Key] = len(p.calls)
		}
		p.calls, p.plans, p.ops = append(p.calls, call), append(p.plans, plan), append(p.ops, i)
	}
	return p
}

// evalEach runs calls, and those again whose script the server did not know: first with one
// text for each script, which loads it, then with a text for each call that is left,
// since servers keep scripts each for itself.
func (s *Store) evalEach(ctx context.Context, calls []Call) []Outcome {
	if len(calls) == 0 {
		return nil
	}
	outcomes := s.client.EvalEach(ctx, calls)
	for round := range 2 {
		var again []Call
		var places []int
		sent := make(map[*Script]bool)
		for i, o := range outcomes {
			if o.Err == nil || !notLoaded(o.Err) {
				continue
			}
			call := calls[i]
			call.Whole = round > 0 || !sent[call.Script]
			sent[call.Script] = true
			again, places = append(again, call), append(places, i)
		}
		if len(again) == 0 {
			break
		}
		for i, o := range s.client.EvalEach(ctx, again) {
			outcomes[places[i]] = o
		}
	}
	return outcomes
}
