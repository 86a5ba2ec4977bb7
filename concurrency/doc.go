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
// Everything here is safe for concurrent use. No goroutine is started and no timer runs.
package concurrency
