package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"

	throttlekit "github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/vectors"
)

// timeline is a suite without its expectations. Its name ends the suite's name.
type timeline struct {
	name    string
	kind    string
	options vectors.Options
	steps   []step
}

// step is one check.
type step struct {
	now  int64
	cost float64
}

// epoch is a time of our days: 2023-11-14T22:13:20Z.
const epoch = 1_700_000_000_000

// Lengths of time in milliseconds.
const (
	second = 1000
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour
)

// at is checks of the given costs at one time.
func at(now int64, costs ...float64) []step {
	steps := make([]step, len(costs))
	for i, cost := range costs {
		steps[i] = step{now, cost}
	}
	return steps
}

// each is one check of the given cost at each of the times, counted from base.
func each(base int64, cost float64, times ...int64) []step {
	steps := make([]step, len(times))
	for i, t := range times {
		steps[i] = step{base + t, cost}
	}
	return steps
}

// repeat is n checks of cost 1 at one time.
func repeat(now int64, n int) []step { return slices.Repeat(at(now, 1), n) }

func sequence(parts ...[]step) []step { return slices.Concat(parts...) }

// random is forty checks whose times are steps of up to longest from the epoch on, most of them
// short, and whose costs are integers up to dearest, most of them small. The name is the seed.
func random(name string, longest int64, dearest int) []step {
	const n = 40
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))             // writing to a hash does not fail
	r := rand.New(rand.NewPCG(h.Sum64(), n)) //nolint:gosec // a timeline that comes out the same every time
	now := int64(epoch)
	steps := make([]step, n)
	for i := range steps {
		switch r.IntN(8) {
		case 0:
			now += longest + r.Int64N(longest)
		case 1, 2, 3:
			now += r.Int64N(longest + 1)
		case 4, 5:
			now += r.Int64N(longest/10 + 1)
		}
		steps[i] = step{now, float64(1 + r.IntN(1+r.IntN(dearest)))}
	}
	return steps
}

// decide fills in what the core decides, in a store and, as a check of the times to
// live, on a bare record that never expires: both must agree.
func (t timeline) decide() (vectors.Suite, error) {
	suite := vectors.Suite{
		Primitive: vectors.RateLimit, Name: t.kind + "/" + t.name, Key: "k",
		Strategy: vectors.Strategy{Kind: t.kind, Options: t.options},
	}
	strategy, err := suite.Strategy.Build()
	if err != nil {
		return suite, err
	}
	rule, err := strategy.Rule()
	if err != nil {
		return suite, err
	}
	session, err := vectors.Memory().Open(suite)
	if err != nil {
		return suite, err
	}
	var rec throttlekit.Record
	for i, s := range t.steps {
		d, checkErr := session.Check(context.Background(), s.now, suite.Key, s.cost)
		next, bare, _ := rule.Apply(rec, s.now, s.cost)
		if checkErr == nil && d != bare {
			checkErr = fmt.Errorf("the store decides %+v, a record that never expires %+v", d, bare)
		}
		if checkErr != nil {
			return suite, errors.Join(fmt.Errorf("op %d: %w", i, checkErr), session.Close())
		}
		rec = next
		suite.Ops = append(suite.Ops, vectors.Op{Now: s.now, Cost: s.cost, Expect: d})
	}
	return suite, session.Close()
}
