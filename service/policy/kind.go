package policy

import (
	"slices"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

// kind is a way of building policies that a block in the policy asks for. To add one,
// write a file with its read function and name that function in kinds.
type kind struct {
	// name is the key of the block.
	name string
	// read reads the policy and its block, reports what is wrong with them, and fills
	// in info and make.
	read func(p *draft, block *entry)
}

// kinds are all of them. A policy has at most one; one that has none is plain.
var kinds = []kind{
	{name: "tokenBudget", read: readTokenBudget},
	{name: "fleetBudget", read: readFleetBudget},
	{name: "fairEscrow", read: readFairEscrow},
	{name: "federatedFairEscrow", read: readFederatedFairEscrow},
	{name: "concurrency", read: readConcurrency},
	{name: "distributedConcurrency", read: readDistributedConcurrency},
	{name: "twoTier", read: readTwoTier},
	{name: "federated", read: readFederated},
}

// unsupported is the rule that a block breaks for which there is no code yet.
const unsupported = "is not supported by this build"

func kindNames() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// draft is a policy that is being read.
type draft struct {
	*scope

	spec *spec
	// inherits says that the prefix of the policy's keys is that of the defaults.
	inherits bool
}

// spec is a policy that has been read and is right.
type spec struct {
	records // of the policy itself

	info  service.Info
	at    position // of the name
	path  string   // limiters.<name>
	costs records  // of its budget, beside a guard
	make  maker
}

// records are those that a policy keeps under one prefix of a shared store.
type records struct {
	prefix string
	rule   throttlekit.Rule // that their keys are charged by, nil if there are none
	common bool             // the prefix is one that policies have without saying so
}

// maker builds a policy.
type maker func(s *spec, env Env) (service.Policy, error)

// read fills in the kind, what its decisions report, and make.
func (p *draft) read() {
	var blocks []*entry
	var chosen kind
	for _, k := range kinds {
		if e := p.find(k.name); e != nil {
			blocks, chosen = append(blocks, e), k
		}
	}
	switch {
	case len(blocks) == 0:
		readPlain(p)
	case len(blocks) > 1:
		p.exclude(blocks)
		p.asked = append(p.asked, append(strategyFields(), "strategy", "budget")...)
	default:
		p.spec.info.Kind = chosen.name
		chosen.read(p, blocks[0])
	}
	if n := p.entry("budget"); n != nil && !slices.Contains(p.asked, "budget") {
		p.asked = append(p.asked, "budget")
		p.out.add(n.pos, Problem{Path: join(p.path, "budget"), Rule: "must not be given without concurrency or distributedConcurrency"})
	}
	p.finish()
}

// exclude reports several kinds on one policy, at the last one.
func (p *draft) exclude(blocks []*entry) {
	slices.SortFunc(blocks, func(a, b *entry) int { return a.pos.compare(b.pos) })
	names := make([]string, len(blocks))
	for i, e := range blocks {
		names[i] = e.key
	}
	p.out.add(blocks[len(blocks)-1].pos, Problem{
		Path: p.path, Rule: "must have at most one of " + allOf(kindNames()), Value: allOf(names),
	})
}
