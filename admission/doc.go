// Package admission makes one decision of several: how much work is under way, how many requests
// come, and what they cost.
//
// An [Admitter] asks up to three axes in a fixed order: a concurrency guard, then the rate, then the
// cost, the last two together on one store. A [Price] may stand between the guard and those: it
// refuses requests that are worth less than what they would use up is worth to others.
//
// An Admitter promises:
//
//   - A request that is denied or fails charges nothing, on any axis, whichever one denied. Rate and
//     cost are charged in one atomic step of the store; a slot of the guard that was taken before
//     them is canceled, which teaches the guard nothing.
//   - A slot is held if and only if the request was admitted, and is ended once.
//   - The combined [throttlekit.Decision] is the strictest of those that were asked, field by field,
//     as [Combine] says, and [Admission.Of] tells each of them.
//   - A wrong request is refused before anything is taken.
//
// It does not promise that what it charged on an admission comes back when the work fails: that is
// the price of asking. A store that fails may have charged what it did not confirm.
//
// Everything here is safe for concurrent use. No goroutine is started. Specification: "TALE" §3.
package admission
