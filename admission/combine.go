package admission

import "github.com/throttlekit/throttlekit-go"

// Combine is the decision of two limits that must both allow: Allowed is the conjunction, Limit and
// Remaining are the lesser, ResetAtMillis and RetryAfterMillis the greater of the two. It is commutative,
// associative and idempotent. Specification: "TALE" §3.1.
func Combine(a, b throttlekit.Decision) throttlekit.Decision {
	return throttlekit.Decision{
		Allowed:          a.Allowed && b.Allowed,
		Limit:            min(a.Limit, b.Limit),
		Remaining:        min(a.Remaining, b.Remaining),
		ResetAtMillis:    max(a.ResetAtMillis, b.ResetAtMillis),
		RetryAfterMillis: max(a.RetryAfterMillis, b.RetryAfterMillis),
	}
}

// AllowFull is the decision that changes none that it is combined with, and so that of no limit at
// all: Limit and Remaining are [throttlekit.MaxSafe].
func AllowFull() throttlekit.Decision {
	return throttlekit.Decision{Allowed: true, Limit: throttlekit.MaxSafe, Remaining: throttlekit.MaxSafe}
}
