package service

import (
	"context"

	"github.com/throttlekit/throttlekit-go"
)

// Debit books tokens that were spent already, from 1 to [throttlekit.MaxSafe], against the
// budget of a key. It is refused only once the budget is used up: the debit that crosses the
// line is allowed and booked in full, and a refused one books nothing. Keys are those of
// [Service.Check].
//
// The error matches ErrPolicyNotFound, ErrUnsupported, ErrInvalid or ErrClosed of package
// throttlekit, or is that of ctx. If the store cannot decide, the fail mode does, and there is
// no error; whether the tokens were booked is unknown then, and nobody books them later.
func (s *Service) Debit(ctx context.Context, policy, key string, tokens int64) (throttlekit.Decision, error) {
	h, err := s.find(policy)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	if err := s.ready(h, h.debiter != nil, "debit", key); err != nil {
		return throttlekit.Decision{}, err
	}
	if err := validUnits("tokens", tokens); err != nil {
		return throttlekit.Decision{}, err
	}
	start := s.begin(h)
	d, err := h.debiter.Debit(ctx, key, tokens)
	return s.conclude(ctx, h, key, float64(tokens), start, d, err)
}
