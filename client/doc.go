// Package client asks a ThrottleKit service for decisions over gRPC.
//
//	c, err := client.Dial("127.0.0.1:50051")
//	...
//	decision, err := c.Check(ctx, "api", userID)
//
// A [Client] decides nothing by itself: it carries what the service decided, with two exceptions that have to be asked for.
// [WithUnavailable] makes it answer in place of a service that cannot be reached, and a [Leased] spends what was lent to it.
//
// # Deadlines
//
// A call ends when its context does, and the service learns of the deadline. A context without a deadline gets the one
// of [WithTimeout], 1 second by default, so that a service that hangs cannot hang its callers.
//
// # Errors
//
// A denial is a decision, not an error. Errors are told apart by [errors.Is]:
//
//	throttlekit.ErrInvalid            a value is out of range; asking again will not help
//	throttlekit.ErrPolicyNotFound     the service has no policy of this name
//	throttlekit.ErrUnsupported        the policy, or the service, cannot do that
//	throttlekit.ErrStoreUnavailable   the service answered, but its store did not
//	throttlekit.ErrClosed             the client is closed
//	client.ErrUnauthenticated         the service lends, or shows, nothing without its secret
//	client.ErrDenied                  Do did not begin its work; the error is a *DeniedError
//	client.ErrReclaimed               the work that Do ran was ended because its slot was lost
//	client.ErrUnavailable             the service cannot be reached, or did not answer in time
//	context.DeadlineExceeded          the deadline of the caller's context has passed
//	context.Canceled                  the caller's context was cancelled
//
// Those that come from a call also carry its gRPC status, for status.FromError. After ErrUnavailable and after both
// context errors it is unknown whether the request was charged; no call is ever repeated once the service may have seen it.
//
// # Token budgets
//
// [Client.Debit] books what was spent already, such as the tokens of a model's answer, piece by piece as they come. It is
// refused once the budget is used up, and the stream has to stop then.
//
// # Admission
//
// [Client.Admit] asks for leave on rate, concurrency and cost at once, and holds a slot until it is released; [Client.Do] runs
// a function within one:
//
//	err := c.Do(ctx, "llm", userID, func(ctx context.Context) error { return ask(ctx, model) })
//
// A slot whose holder is gone goes back by itself. Heartbeats, one call for all slots of a client, keep the others. A holder that
// is cut off from the service learns that its slot is lost before the service gives it to somebody else, with one
// exception: a slot that was waited for counts as granted a quarter of a term before the answer came, until the first
// heartbeat, sent at once, is answered. Time is counted on the monotonic clock of the process, which may stand still while
// the machine is suspended: what was held then is found to be lost by the first heartbeat afterwards.
//
// # Leases
//
// [Fleet.Leased] spends what the service has lent it, at the price of a counter, and keeps the limit of a federated policy
// all the same:
//
//	limiter, err := c.Fleet().Leased("api", "", 1000)
//
// # Transport security
//
// Plaintext is for loopback addresses. Everything else needs [WithTLS], or [WithPlaintext] to say that it is meant.
//
// All types are safe for concurrent use.
package client
