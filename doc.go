// Package throttlekit decides whether a request may go ahead.
//
// A [Limiter] applies one [Strategy] to any number of keys and answers every
// question with a [Decision]: five integers that say whether the request was
// admitted, what the limit is, how much of it remains, when it is whole again
// and how long to wait. A denial is a value, never an error, and charges nothing.
//
//	limiter, err := throttlekit.NewLimiter(throttlekit.GCRA{Limit: 100, Period: time.Minute, Burst: 20})
//	...
//	decision, err := limiter.Check(ctx, "user:42")
//
// # One core
//
// Every strategy is a pure [Transition] from (record, now, cost) to a new record
// and a Decision: no I/O, no clock, no lock. A [Store] does one thing, apply a
// transition to one key atomically with its own clock, so the same strategies run
// unchanged in process ([MemoryStore]) and on shared stores. State and arithmetic
// are IEEE-754 binary64, evaluated in one fixed order, so that processes in other
// languages that share a store see one limiter to the last bit.
//
// # Promises
//
//   - In any window the admitted cost never exceeds what the strategy's own
//     definition allows, whatever the concurrency and however the clock steps:
//     time that moves backwards can only deny more, never admit more.
//   - A denied check consumes nothing and stores nothing.
//   - A record is dropped only when it equals a fresh one, so that running out of
//     memory never reopens a budget.
//
// All types are safe for concurrent use unless their documentation says otherwise.
package throttlekit
