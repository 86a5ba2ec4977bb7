package service

import (
	"context"
	"fmt"

	"github.com/throttlekit/throttlekit-go"
)

// Lenders are the names of the policies that can Reserve, in the order of the configuration.
func (s *Service) Lenders() []string {
	var names []string
	for _, info := range s.infos {
		if s.held[info.Name].reserver != nil {
			names = append(names, info.Name)
		}
	}
	return names
}

// Reserve lends up to wants units of the budget of a domain to a caller who spends them
// without asking again. It is the budget that a check of a key of this text draws on; an
// empty domain stands for the name of the policy. What is lent is charged. A budget with
// nothing left lends 0 units, which is an answer and not an error.
//
// The error matches ErrPolicyNotFound, also for a policy that does not lend, ErrInvalid if
// wants is not from 1 to [throttlekit.MaxSafe] or the domain is longer than [MaxKeyBytes],
// ErrStoreUnavailable, or ErrClosed of package throttlekit, or is that of ctx. The fail
// mode has no part in it: nobody can lend what may not be there.
func (s *Service) Reserve(ctx context.Context, policy, domain string, wants int64) (Grant, error) {
	h, err := s.find(policy)
	if err != nil {
		return Grant{}, err
	}
	if h.reserver == nil {
		return Grant{}, fmt.Errorf("%w: policy %s of kind %s does not lend; federated policies do",
			throttlekit.ErrPolicyNotFound, quoted(policy), h.info.Kind)
	}
	if err := s.ready(h, true, "reserve", domain); err != nil {
		return Grant{}, err
	}
	if err := validUnits("wants", wants); err != nil {
		return Grant{}, err
	}
	if domain == "" {
		domain = policy
	}
	start := s.begin(h)
	g, err := h.reserver.Reserve(ctx, domain, wants)
	if err != nil {
		return Grant{}, err
	}
	if len(h.taps) > 0 {
		at, took := s.end(start)
		e := Event{Policy: h.info, Key: domain, Cost: float64(wants), Lease: true, Decision: g.Denial, At: at, Elapsed: took}
		if g.Units > 0 {
			e.Cost = float64(g.Units)
			e.Decision = throttlekit.Decision{Allowed: true, Limit: g.Limit, Remaining: g.Units, ResetAtMillis: g.ResetAtMillis}
		}
		s.tell(ctx, h, &e)
	}
	return g, nil
}
