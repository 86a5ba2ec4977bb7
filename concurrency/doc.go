// Package concurrency limits how many requests are under way at once, and learns the limit
// from what they tell: how long they took, and whether they failed.
//
// A [Guard] hands out permits. Each is ended once, in one of three ways, which is what the
// guard learns from: [Permit.Release] for work that was done, whose latency counts;
// [Permit.Drop] for work that failed because of load, such as a timeout; [Permit.Cancel] for
// work that did not take place, which teaches nothing.
//
// The guard promises:
//
//   - When a permit is given, no more are in flight than the limit at that moment, itself
//     included. A limit that falls takes no permit back.
//   - The limit stays between MinLimit and MaxLimit.
//   - The latency without load is learned from requests that had hardly any company, and from
//     faster ones. Neither a standing queue nor failures, however long they last, move it.
//   - Who waits is served by priority, then by arrival; a caller whose context ends holds nothing.
//
// A [FleetGuard] is a guard whose limit is also its share of a [Ceiling] that the nodes of a fleet
// have together. It tells a record on a [throttlekit.Store] by beats what it has in flight, and
// promises beside the above:
//
//   - A permit asks no store. It is given while fewer are in flight than the share, too.
//   - A guard that the store has not heard for so long that its slots may be given to others has
//     stopped FenceMargin before that: it fences itself, on its own monotonic clock. In an outage
//     it does the same, unless it is told to go by the local limit.
//   - With AcknowledgedHandoff, no more are in flight in the fleet than a ceiling that stays the same,
//     if requests end within FenceMargin or are aborted by OnFence.
//   - After Close no beat is sent.
//
// Everything here is safe for concurrent use. A FleetGuard has one goroutine and one timer until it
// is closed; nothing else starts any.
package concurrency
