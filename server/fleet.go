package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

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

	svc     Lender
	lenders []string
	secret  *[sha256.Size]byte // digest of the secret; nil lends to callers on this machine
}

// newFleet is nil if the service has nothing to lend.
func newFleet(svc Service, secret string) *fleet {
	lender, ok := svc.(Lender)
	if !ok {
		return nil
	}
	f := &fleet{svc: lender, lenders: lender.Lenders()}
	if len(f.lenders) == 0 {
		return nil
	}
	if secret != "" {
		digest := sha256.Sum256([]byte(secret))
		f.secret = &digest
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

// errUnauthenticated marks a caller who may not ask.
var errUnauthenticated = errors.New("server: not authenticated")

// The places where a caller presents the fleet secret.
const (
	secretHeader = "x-fleet-secret"
	bearerHeader = "authorization"
)

// admit decides whether a caller may ask, before its request is read.
func (f *fleet) admit(header func(name string) string, addr string) error {
	if f.secret == nil {
		if ap, err := netip.ParseAddrPort(addr); err == nil && ap.Addr().Unmap().IsLoopback() {
			return nil
		}
		return fmt.Errorf("%w: this server has no fleet secret, so it lends to callers on its own machine only", errUnauthenticated)
	}
	secret := header(secretHeader)
	if secret == "" {
		secret = bearer(header(bearerHeader))
	}
	// Digests have one length, so the comparison tells nothing about the secret's.
	if digest := sha256.Sum256([]byte(secret)); subtle.ConstantTimeCompare(digest[:], f.secret[:]) == 1 {
		return nil
	}
	return fmt.Errorf("%w: the fleet secret is missing or wrong; it goes into %s, or into %s as a bearer token",
		errUnauthenticated, secretHeader, bearerHeader)
}

// bearer is the token of an Authorization header, or empty.
func bearer(value string) string {
	scheme, token, _ := strings.Cut(strings.TrimSpace(value), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// admitGRPC is admit for a gRPC call.
func (f *fleet) admitGRPC(ctx context.Context) error {
	addr := ""
	if p, ok := peer.FromContext(ctx); ok {
		addr = p.Addr.String()
	}
	return f.admit(func(name string) string {
		if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
			return values[0]
		}
		return ""
	}, addr)
}

// admitConnect is admit for a call of the HTTP door. It admits callers of other services.
func (f *fleet) admitConnect(ctx context.Context, spec connect.Spec) error {
	if f == nil || !strings.HasPrefix(spec.Procedure, "/"+throttlekitv1.Fleet_ServiceDesc.ServiceName+"/") {
		return nil
	}
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return errUnauthenticated
	}
	return f.admit(info.RequestHeader().Get, info.PeerAddr)
}
