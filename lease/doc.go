// Package lease spends limits in batches: a holder takes many units from a shared budget
// in one round trip and hands them out locally, at the price of a counter. What is handed
// out was charged before, so the shared limit holds however many holders there are.
//
// How long a holder may keep what it took decides what the limit means:
//
//   - Until the end of the window in which it was charged ([TwoTierConfig.WindowCoupled],
//     [Federated], Fleet leases): admissions per window never exceed the limit.
//   - For a fixed time after the request for it was sent ([TwoTierConfig.ExpireAfter]), while
//     the shared budget is charged by a strategy that pays for the delay
//     ([throttlekit.Deferrable]): admissions keep to the strategy's own envelope, also for
//     rates without windows.
//   - For as long as it likes, which is the default for compatibility: each holder can carry
//     up to a batch less one unit from one window into the next.
//
// All deadlines run on the holder's own monotonic clock and count from the moment at which
// it sent the request, so they can only come early: no two wall clocks are ever compared.
// The proofs are in docs/proofs.md, their models in spec/.
//
// [Spender] is the pure part, without clock, lock or I/O. [Holder] makes it safe for
// concurrent use and refreshes it from a [Source]; [TwoTier] and [Federated] keep one
// holder for each key. [Learner] and [Predictor] choose the size of batches.
package lease
