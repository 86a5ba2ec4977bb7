package service

import (
	"context"

	"github.com/throttlekit/throttlekit-go"
)

// Bound is one policy of a service as a [throttlekit.Checker], for middleware and for
// programs that embed the service. Fail mode and taps work as for [Service.Check].
type Bound struct {
	service *Service
	held    *held
}

// Bind returns the policy under a name. The error matches ErrPolicyNotFound, or
// ErrUnsupported if the policy cannot check.
func (s *Service) Bind(policy string) (*Bound, error) {
	h, err := s.find(policy)
	if err != nil {
		return nil, err
	}
	if err := s.ready(h, h.checker != nil, "check", ""); err != nil {
		return nil, err
	}
	return &Bound{service: s, held: h}, nil
}

// Check decides on a request of cost 1 and charges it if it is allowed.
func (b *Bound) Check(ctx context.Context, key string) (throttlekit.Decision, error) {
	return b.service.check(ctx, b.held, key, 1)
}

// CheckN decides on a request of the given cost and charges it, whole or not at all.
func (b *Bound) CheckN(ctx context.Context, key string, cost float64) (throttlekit.Decision, error) {
	return b.service.check(ctx, b.held, key, cost)
}
