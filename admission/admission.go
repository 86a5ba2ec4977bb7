package admission

import (
	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

// Axis is what a request is limited by.
type Axis string

// The axes, in the order in which they are asked.
const (
	// Concurrency is how many requests are under way.
	Concurrency Axis = "concurrency"
	// Rate is how many requests come; each counts 1.
	Rate Axis = "rate"
	// Cost is what requests cost.
	Cost Axis = "cost"
)

// axes are all of them, in order. The place of one in it is where an [Admission] keeps its decision.
var axes = [...]Axis{Concurrency, Rate, Cost}

const (
	placeConcurrency = iota
	placeRate
	placeCost
)

// Admission is the answer to one request. The embedded Decision combines those of the axes that were
// asked. One that is allowed may hold a slot of the guard, and must be ended by Release, Drop or
// Cancel when the work is over. The first of these ends it; the others, and all on an admission that
// is denied or without a guard, do nothing. That holds for all copies together.
type Admission struct {
	throttlekit.Decision

	// Binding is the first axis that denied, in the order concurrency, rate, cost. It is empty if the
	// request was allowed, and if it was the price that denied. A stand-in (see [Admitter.AdmitOr])
	// answers for the first axis that it stands in for.
	Binding Axis
	// PriceDenied says that the request was worth less than its price. The Decision then tells the
	// guard's limit, if there is one, with nothing remaining. RetryAfterMillis is 0 although the request
	// was denied: no time makes it worth more.
	PriceDenied bool

	asked  [len(axes)]bool
	each   [len(axes)]throttlekit.Decision
	permit concurrency.Permit
}

// Of is an axis' own decision, and whether that axis was asked at all: those behind one that denied
// are not. When the cost alone denied, the decision of the rate still shows what it would have charged.
func (a Admission) Of(axis Axis) (d throttlekit.Decision, asked bool) {
	for i, name := range axes {
		if name == axis {
			return a.each[i], a.asked[i]
		}
	}
	return d, false
}

// Permit is the slot that the admission holds, for those who keep many and end them later. It is
// refused, and ending it does nothing, if there is none.
func (a Admission) Permit() concurrency.Permit { return a.permit }

// Release ends an admission whose work was done. Its latency counts.
func (a Admission) Release() { a.permit.Release() }

// Drop ends an admission whose work failed because of load. That lowers the guard's limit.
func (a Admission) Drop() { a.permit.Drop() }

// Cancel ends an admission whose work did not take place, or says nothing about load. It teaches the
// guard nothing. What was charged for rate and cost stays charged.
func (a Admission) Cancel() { a.permit.Cancel() }

// ask takes an axis' decision in, and reports whether it allows.
func (a *Admission) ask(place int, d throttlekit.Decision) bool {
	a.asked[place], a.each[place] = true, d
	a.Decision = Combine(a.Decision, d)
	if !d.Allowed {
		a.Binding = axes[place]
	}
	return d.Allowed
}

// denyByPrice takes in that the request is not worth its price. Specification: "TALE" §3.3.
func (a *Admission) denyByPrice() {
	a.PriceDenied, a.Allowed, a.Remaining, a.RetryAfterMillis = true, false, 0, 0
}
