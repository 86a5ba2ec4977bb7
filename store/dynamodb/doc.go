// Package dynamostore keeps ThrottleKit's records in Amazon DynamoDB, so that a fleet
// shares its limits. It is a [throttlekit.Store]:
//
//	store, err := dynamostore.New(dynamodb.NewFromConfig(cfg), dynamostore.Config{Table: "limits"})
//	...
//	defer store.Close()
//	limiter, err := throttlekit.NewLimiter(
//		throttlekit.GCRA{Limit: 100, Period: time.Minute},
//		throttlekit.WithStore(store), throttlekit.WithPrefix("prod"))
//
// [CreateTable] makes the table; the store itself creates nothing.
//
// # How a check runs
//
// A strongly consistent read, the core's decision, and a write on the condition that the
// item is still the one that was read: two round trips, one for a denial. If somebody
// else was faster, the check starts over, up to [Config.MaxRetries] times. Checks of one
// store on one key queue up in this process instead of competing; many processes on one
// hot key compete, and DynamoDB is the wrong store for that.
//
// # Layout
//
// One item per key: state (JSON text), version, expires_at_ms, which counts, and
// expires_at in seconds for DynamoDB's own time to live. Implementations in other
// languages share it.
//
// # Promises
//
//   - Checks on one key take effect one after the other.
//   - One call charges at most once: a write whose outcome is unknown is not repeated, by
//     this package or by the SDK.
//   - DynamoDB has no clock to ask, so times are this machine's, [Config.Clock]. Strategies
//     bear clocks that differ: a record remembers the latest time that it has seen, and a
//     clock that is behind only denies longer. Keep the clocks of a fleet synchronized.
//   - A call without a deadline gets one, [Config.Timeout]. A table that is missing, slow or
//     unreachable answers with an error that matches [throttlekit.ErrStoreUnavailable] and
//     names table and prefix; so does contention that does not end, and an item that cannot
//     be read, which is never overwritten.
//   - A call whose context is cancelled returns [context.Canceled].
//   - Batches that must be atomic are refused with [throttlekit.ErrUnsupported]: single-item
//     conditions cannot make them so.
//
// A Store is safe for concurrent use.
package dynamostore
