package admission

import (
	"math/rand/v2"
	"testing"

	"github.com/throttlekit/throttlekit-go"
)

// someDecision is from the domain in which the laws hold: limits up to MaxSafe, times from 0. Few
// values, so that fields are often equal.
func someDecision(r *rand.Rand) throttlekit.Decision {
	values := []int64{0, 1, 2, 5, 1000, throttlekit.MaxSafe - 1, throttlekit.MaxSafe}
	some := func() int64 { return values[r.IntN(len(values))] }
	return throttlekit.Decision{
		Allowed: r.IntN(2) == 0, Limit: some(), Remaining: some(), ResetAtMillis: some(), RetryAfterMillis: some(),
	}
}

func TestCombineLaws(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(6, 3))
	for range 200_000 {
		a, b, c := someDecision(r), someDecision(r), someDecision(r)
		ab := Combine(a, b)
		switch {
		case ab != Combine(b, a):
			t.Fatalf("not commutative: %+v, %+v", a, b)
		case Combine(ab, c) != Combine(a, Combine(b, c)):
			t.Fatalf("not associative: %+v, %+v, %+v", a, b, c)
		case Combine(a, a) != a:
			t.Fatalf("not idempotent: %+v", a)
		case Combine(a, AllowFull()) != a || Combine(AllowFull(), a) != a:
			t.Fatalf("AllowFull is not the identity for %+v", a)
		case Combine(ab, a) != ab || ab.Allowed && !a.Allowed || ab.Limit > a.Limit || ab.Remaining > a.Remaining ||
			ab.ResetAtMillis < a.ResetAtMillis || ab.RetryAfterMillis < a.RetryAfterMillis:
			t.Fatalf("%+v is less strict than %+v", ab, a)
		}
	}
}

func TestCombineFields(t *testing.T) {
	t.Parallel()
	a := throttlekit.Decision{Allowed: true, Limit: 10, Remaining: 3, ResetAtMillis: 500}
	b := throttlekit.Decision{Limit: 4, Remaining: 9, ResetAtMillis: 200, RetryAfterMillis: 70}
	want := throttlekit.Decision{Limit: 4, Remaining: 3, ResetAtMillis: 500, RetryAfterMillis: 70}
	if got := Combine(a, b); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	full := throttlekit.Decision{Allowed: true, Limit: 1<<53 - 1, Remaining: 1<<53 - 1}
	if got := AllowFull(); got != full {
		t.Errorf("%+v, want %+v", got, full)
	}
}
