// Package fair shares one limit among tenants by weight: whoever is busy gets at least its
// share, and what others leave unused may be borrowed.
//
//	escrow, err := fair.NewEscrow(fair.EscrowConfig{Limit: 100, Window: time.Second, WeightOf: weights})
//	...
//	decision, err := escrow.Check(ctx, "acme")
//
// There are four tools, from the simplest to the widest:
//
//   - [FairShare] gives every active tenant an equal part of a window, [WeightedFairShare]
//     one in proportion to its weight. Neither lends.
//   - [Escrow] guarantees each active tenant ⌊weight·budget/weights⌋ of a window and lends what
//     nobody has a claim on. In one process, or over a Store with every process of a fleet.
//   - [FederatedEscrow] is an Escrow in each of several regions. The regions share a
//     [RegionPool], which is a transition on one key of a Store, by the weights of their tenants.
//   - [MaxMin] and [GuaranteedShare] divide a limit among known demands at once.
//
// A tenant is active in a window from its first check on, whether that is admitted or not.
// Sources of the formulas: specification "GALE" §4, and §6 of the core's for the shares.
//
// # Promises
//
//   - In no window is more admitted than the limit, over all tenants, processes and regions,
//     whatever fails. Where a reply is lost, what it granted is lost for the window.
//   - A denied check charges nothing.
//   - Tables are bounded. A tenant that makes room for another, or that [Escrow.Reset] lets
//     go, starts anew, but what it has used stays used.
//   - Windows only roll forward.
//
// Shared windows are those of the store. Processes never compare wall clocks: a lease says
// how long its window still lasts by the store's clock, and the process counts that down on its
// monotonic clock from when it asked, less what [throttlekit.Usable] leaves out, so that it
// stops spending in time. The two clocks may show any times; their paces may differ by
// [throttlekit.Drift]. What is left of a window then, and windows of a few milliseconds as
// a whole, cost a call for each round of checks.
//
// # Costs
//
// A check takes some tenths of a microsecond as long as weights and costs are whole numbers.
// Only one that borrows counts all active tenants, if one has come or gone, or a weight or
// the budget has changed, since they were last counted. One weight or cost that is not whole,
// or weights that sum to more than [throttlekit.MaxSafe], has every later check of that
// window count them, so that results do not depend on the order of rounding: 0.15 to 0.6 ms with
// 100,000. Scale weights and costs to whole numbers, or bound the tenants by MaxTenants.
//
// All types are safe for concurrent use.
package fair
