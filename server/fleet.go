package server

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/service"
)

// Lender is a [Service] that also lends parts of budgets, to callers who then decide by themselves. If it has lenders when
// the server is made, the server has the Fleet door.
type Lender interface {
	// Lenders are the names of the policies that lend.
	Lenders() []string
	// Reserve lends up to wants units of a domain's budget. Errors are told apart as those of Service; a policy that is
	// no lender is not found.
	Reserve(ctx context.Context, policy, domain string, wants int64) (service.Grant, error)
}

// fleet translates between the wire and a lender, for both doors, and knows who may ask.
type fleet struct {
	throttlekitv1.UnimplementedFleetServer // answers methods that the contract may gain

	keeper

	svc     Lender
	lenders []string
}

// newFleet is nil if the service has nothing to lend.
func newFleet(svc Service, secret string) *fleet {
	lender, ok := svc.(Lender)
	if !ok {
		return nil
	}
	f := &fleet{keeper: newKeeper("fleet", nil), svc: lender, lenders: lender.Lenders()}
	if len(f.lenders) == 0 {
		return nil
	}
	if secret != "" {
		f.keeper = newKeeper("fleet", &secret)
	}
	return f
}

// Reserve implements throttlekit.v1.Fleet.
func (f *fleet) Reserve(ctx context.Context, req *throttlekitv1.ReserveRequest) (*throttlekitv1.ReserveResponse, error) {
	policy := req.GetPolicy()
	if req.GetAxis() == throttlekitv1.Axis_AXIS_CONCURRENCY && slices.Contains(f.lenders, policy) {
		return nil, fmt.Errorf("%w: policy %q lends units of its rate; concurrency slots are not lent", throttlekit.ErrUnsupported, policy)
	}
	wants := req.GetWants()
	if wants == 0 {
		wants = 1
	}
	g, err := f.svc.Reserve(ctx, policy, req.GetCaller().GetDomain(), wants)
	if err != nil {
		return nil, err
	}
	return &throttlekitv1.ReserveResponse{Lease: leaseOf(g)}, nil
}

// leaseOf is a grant on the wire. All its times come from the store's clock, also how long it lasts: measured by this
// machine's clock, an error between the two would let the caller spend into the next window.
func leaseOf(g service.Grant) *throttlekitv1.Lease {
	if g.Units <= 0 {
		return &throttlekitv1.Lease{
			ExpiryMs:          g.Denial.ResetAtMillis,
			RefreshIntervalMs: max(1, g.Denial.RetryAfterMillis),
			RetryAfterMs:      g.Denial.RetryAfterMillis,
			Limit:             g.Limit,
		}
	}
	return &throttlekitv1.Lease{
		Capacity:          g.Units,
		ExpiryMs:          g.ResetAtMillis,
		RefreshIntervalMs: max(1, int64(g.ResetsIn/time.Millisecond)),
		SafeCapacity:      g.Units,
		Limit:             g.Limit,
	}
}
