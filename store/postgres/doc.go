// Package pgstore keeps ThrottleKit's records in PostgreSQL, so that a fleet shares its
// limits. It is a [throttlekit.Store]:
//
//	store, err := pgstore.Open("postgres://app@db.internal/app", pgstore.Config{})
//	...
//	defer store.Close()
//	limiter, err := throttlekit.NewLimiter(
//		throttlekit.GCRA{Limit: 100, Period: time.Minute},
//		throttlekit.WithStore(store), throttlekit.WithPrefix("prod"))
//
// A program that has a pool already lends it with [New]. Both succeed while the database
// is down, and the store recovers by itself when it returns.
//
// # Round trips
//
// A check by GCRA, TokenBucket or FixedWindow is one statement, and a batch of such
// checks one round trip: a function in the database decides in the core's arithmetic.
// Every other transition, and every atomic batch, takes two: the first locks and reads,
// the core decides here, the second writes. Load and Reset take one.
//
// # Layout
//
// One table with the columns key, state and expires_at, which implementations in other
// languages share ([Config.Schema] prints it). It is created on first use, safely by any
// number of processes at once, as are the functions; their names end in a digest of
// their text, so that several versions of this package can share a table. Where the
// functions are missing and may not be created, checks take two round trips.
//
// Whoever changes a record holds PostgreSQL's advisory lock on the record's key from
// before it reads until it commits. This holds for other implementations too, so a mixed
// fleet acts as one limiter. Transactions run at READ COMMITTED; where the default is
// another level, single checks follow it until the first serialization failure shows.
//
// # Promises
//
//   - Checks on one key take effect one after the other, at the database's clock, which
//     is read under the lock.
//   - One call charges at most once. Only a transaction that is known to have been rolled
//     back is tried again.
//   - A call without a deadline gets one, [Config.Timeout]. A database that is down, slow
//     or frozen answers with an error that matches [throttlekit.ErrStoreUnavailable] and
//     names table and prefix, never a password. So do a record that cannot be read, which
//     is never overwritten, and a table of another shape.
//   - A call whose context is cancelled returns [context.Canceled].
//
// A Store is safe for concurrent use.
package pgstore
