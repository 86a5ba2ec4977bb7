package throttlekit

// Strategy is a rate-limiting rule as a user writes it: a plain struct such as
// [GCRA] or [FixedWindow]. Programs may add their own.
type Strategy interface {
	// Rule validates the strategy once and returns its executable form. The error
	// matches ErrInvalid and names every field that breaks a rule.
	Rule() (Rule, error)
}

// Rule is a validated strategy: a [Transition] that can also look without charging.
// Rules are immutable.
type Rule interface {
	Transition
	// Strategy is what the rule was made from, with its defaults filled in.
	Strategy() Strategy
	// Limit is what its decisions report as their limit.
	Limit() int64
	// Peek is the decision that a check of cost 1 would be based on, charging nothing.
	Peek(rec Record, nowMillis int64) Decision
	// Forecast says how many requests of the given cost fit now and when more will.
	Forecast(rec Record, nowMillis int64, cost float64) Forecast
}

// allow and deny build decisions, so that the invariant of RetryAfterMillis stands in one place.
func allow(limit, remaining, resetAt int64) Decision {
	return Decision{Allowed: true, Limit: limit, Remaining: remaining, ResetAtMillis: resetAt}
}

func deny(limit, remaining, resetAt, retryAfter int64) Decision {
	return Decision{
		Limit: limit, Remaining: remaining, ResetAtMillis: resetAt, RetryAfterMillis: max(1, retryAfter),
	}
}
