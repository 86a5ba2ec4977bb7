package service

import (
	"context"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/admission"
)

// MaxLeases is how many leases one [Service.Heartbeat] renews at most.
const MaxLeases = 100_000

// DefaultLeaseTTL is how long a lease on a slot lasts unless it is renewed.
const DefaultLeaseTTL = 2 * time.Second

// AdmitRequest is what an [Service.Admit] asks for.
type AdmitRequest = admission.Request

// Admitter decides on all axes of a policy at once, and holds a slot for what it admits.
type Admitter interface {
	// AdmitOr decides on one request. Where the store cannot decide, standIn does.
	AdmitOr(ctx context.Context, req AdmitRequest, standIn admission.StandIn) (admission.Admission, error)
}

// Admitted is the answer to an Admit.
type Admitted struct {
	throttlekit.Decision

	// Axis is what denied: "concurrency", "rate" or "cost"; empty if nothing or the price did.
	Axis string
	// PriceDenied says that the request was not worth what it would have taken.
	PriceDenied bool
	// Lease names the slot that the request holds, and is empty if it holds none.
	Lease string
	// ExpiresAtMillis is when the lease is over unless it is renewed, in epoch milliseconds.
	ExpiresAtMillis int64
	// TTL is how long the lease lasts from when it is granted or renewed. Zero without a lease.
	TTL time.Duration
}

// Admit decides on one request on every axis of a policy, and grants a lease on a slot to what it
// admits. The lease ends with [Service.Release]; unless [Service.Heartbeat] renews it, it is over
// after the LeaseTTL of the configuration, and the slot counts as dropped. A denial holds and
// charges nothing. Keys are those of [Service.Check].
//
// The error matches ErrPolicyNotFound, ErrUnsupported, ErrInvalid or ErrClosed of package
// throttlekit, or is that of ctx, and then no slot is held. If the store cannot decide, the fail
// mode does; what it admits holds a slot all the same, for concurrency needs no store.
func (s *Service) Admit(ctx context.Context, policy string, req AdmitRequest) (Admitted, error) {
	h, err := s.find(policy)
	if err != nil {
		return Admitted{}, err
	}
	if err := s.ready(h, h.admitter != nil, "admit", req.Key); err != nil {
		return Admitted{}, err
	}
	start := s.begin(h)
	var stoodIn FailMode
	a, err := h.admitter.AdmitOr(ctx, req, func(ctx context.Context, err error) (throttlekit.Decision, error) {
		d, err := s.standIn(ctx, h, err, 1)
		if err == nil {
			stoodIn = h.mode
		}
		return d, err
	})
	if err != nil {
		return Admitted{}, err
	}
	if stoodIn == "" && a.Binding != admission.Concurrency && !a.PriceDenied {
		s.decided(ctx, h) // the store was asked, if there is one
	}
	answer := Admitted{Decision: a.Decision, Axis: string(a.Binding), PriceDenied: a.PriceDenied}
	if permit := a.Permit(); permit.Allowed {
		if err := ctx.Err(); err != nil {
			permit.Cancel() // the caller has left, and would not hear of the lease
			return Admitted{}, err
		}
		var ok bool
		if answer.Lease, ok = s.leases.grant(h, permit); !ok {
			permit.Cancel()
			return Admitted{}, fmt.Errorf("%w: the service", throttlekit.ErrClosed)
		}
		answer.TTL = s.leases.ttl
		answer.ExpiresAtMillis = s.now().Add(s.leases.ttl).UnixMilli()
	}
	if len(h.taps) > 0 {
		at, took := s.end(start)
		e := Event{
			Policy: h.info, Key: req.Key, Cost: req.Cost, Admit: true, Axis: answer.Axis,
			Decision: a.Decision, FailMode: stoodIn, At: at, Elapsed: took,
		}
		if e.Cost == 0 {
			e.Cost = 1
		}
		if a.PriceDenied {
			e.Axis = "policy"
		}
		s.tell(ctx, h, &e)
	}
	return answer, nil
}

// Release ends a lease; dropped says that the work failed because of load. A lease that is not
// held, or was not granted here, is left at that: a caller may repeat a release.
func (s *Service) Release(lease string, dropped bool) { s.leases.release(lease, dropped) }

// Renewal says which leases a [Service.Heartbeat] has renewed.
type Renewal struct {
	// Live are those that were renewed, Reclaimed those that are not held any more or never
	// were, both in the order of the request, repetitions included.
	Live, Reclaimed []string
	// DeadlineMillis is when leases that were renewed now are over, in epoch milliseconds.
	DeadlineMillis int64
}

// Heartbeat gives each lease a further LeaseTTL from now. Leases of a policy that has fenced itself since
// they were granted count as reclaimed, so that their holders stop. The error matches ErrInvalid if there are
// more than [MaxLeases]; then none is renewed.
func (s *Service) Heartbeat(leases []string) (Renewal, error) {
	if len(leases) > MaxLeases {
		return Renewal{}, &throttlekit.InvalidError{
			Field: "leases", Value: len(leases), Rule: fmt.Sprintf("must be at most %d", MaxLeases),
		}
	}
	var r Renewal
	r.Live, r.Reclaimed = s.leases.renew(leases)
	r.DeadlineMillis = s.now().Add(s.leases.ttl).UnixMilli()
	return r, nil
}

// Leases is how many slots callers hold, and how many were reclaimed since the service began
// because nobody renewed them.
func (s *Service) Leases() (held int, reclaimed int64) { return s.leases.count() }
