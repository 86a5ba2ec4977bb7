package server

import (
	"testing"

	"google.golang.org/protobuf/proto"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// Through every door a debit of 0 is one of 1, the one that crosses the budget is booked in full, and a refusal is an answer.
func TestDebitThroughEveryDoor(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, policies(t, meter{"tokens", newMeter(t)}), local())
	const reset = epoch - epoch%3_600_000 + 3_600_000
	left := func(n int64) *throttlekitv1.Decision {
		return &throttlekitv1.Decision{Allowed: true, Limit: 10, Remaining: n, ResetAt: reset}
	}
	refused := &throttlekitv1.Decision{Limit: 10, ResetAt: reset, RetryAfterMs: reset - epoch}
	for name, door := range stubs(t, s) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, step := range []struct {
				tokens int64
				want   *throttlekitv1.Decision
			}{{0, left(9)}, {8, left(1)}, {1 << 52, left(0)}, {1, refused}, {0, refused}} {
				res, err := door.Debit(t.Context(), &throttlekitv1.DebitRequest{Policy: "tokens", Key: "key of " + name, Tokens: step.tokens})
				if err != nil || !proto.Equal(res.GetDecision(), step.want) {
					t.Errorf("debit %d: got %v, %v, want %v", i, res, err, step.want)
				}
			}
		})
	}
}
