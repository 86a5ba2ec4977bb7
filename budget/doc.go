// Package budget meters what is paid for in tokens, of which nobody knows beforehand how many a
// request will take: a model's answer, a stream, a query.
//
//   - [Meter] counts tokens against budgets per window. The debit that crosses a budget is counted
//     in full and the next is refused, so what is metered in a window never exceeds the budget by
//     more than the last debit less one, whatever the concurrency; with debits of one token, never
//     at all. A budget may have several windows and parents; one debit charges all or nothing.
//   - [Granted] draws many tokens from a shared meter in one round trip and meters them here.
//     They are charged before they are used, so the budget is never exceeded.
//   - [Ledger] admits requests while what is used and what is expected of those under way fit:
//     input is charged up front and whole, output is metered, and [Lease.Settle] puts right what
//     was metered by what was reported.
//   - [Learned] and [Predictive] learn how much to expect.
//
// Without a store, budgets live in this process; with a [throttlekit.Store] they are shared, and
// the store's clock alone says which window it is. One rule serves both: an account, which is
// what a store's record holds. Everything here is safe for concurrent use unless it says otherwise.
package budget
