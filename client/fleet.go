package client

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/metadata"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/lease"
)

// WithFleetSecret presents a secret to services that lend to nobody without it; see [Client.Fleet]. Calls of other
// methods do not carry it. It must not be empty.
func WithFleetSecret(secret string) Option {
	return func(o *options) { o.secret, o.hasSecret = secret, true }
}

// Fleet leases parts of federated policies' budgets from a service. It is safe for concurrent use.
type Fleet struct{ client *Client }

// Fleet is the part of the service that lends, over the same connection.
func (c *Client) Fleet() *Fleet { return &Fleet{client: c} }

// Reserve takes up to wants units, from 1 to 2^53-1, out of the budget of a domain in its current window. They are charged
// whether they are used or not, and end with [lease.Grant.Lasts]. A budget with nothing left grants 0 units, with the
// denial that a check would get. An empty domain stands for the policy's name; domains are UTF-8 text. Most programs want
// [Fleet.Leased], which reserves when it needs to.
func (f *Fleet) Reserve(ctx context.Context, policy, domain string, wants int64) (lease.Grant, error) {
	return f.reserve(ctx, f.client.timeout, policy, domain, wants)
}

func (f *Fleet) reserve(ctx context.Context, timeout time.Duration, policy, domain string, wants int64) (lease.Grant, error) {
	if err := errors.Join(validUnits("wants", wants), validDomain(domain)); err != nil {
		return lease.Grant{}, err
	}
	if f.client.secret != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-fleet-secret", f.client.secret)
	}
	var res throttlekitv1.ReserveResponse
	req := &throttlekitv1.ReserveRequest{
		Policy: policy, Caller: &throttlekitv1.Caller{Domain: domain}, Wants: wants, Axis: throttlekitv1.Axis_AXIS_RATE,
	}
	if err := f.client.callWithin(ctx, timeout, throttlekitv1.Fleet_Reserve_FullMethodName, req, &res); err != nil {
		return lease.Grant{}, err
	}
	return grant(res.GetLease(), wants)
}

func validDomain(domain string) error {
	if utf8.ValidString(domain) {
		return nil
	}
	return &throttlekit.InvalidError{Field: "domain", Value: domain, Rule: "must be UTF-8 text"}
}

// grant reads a lease of the wire. What breaks the contract is an error where it might cost the limit: more units than
// were asked for, or units that never end.
func grant(l *throttlekitv1.Lease, wants int64) (lease.Grant, error) {
	if l == nil {
		return lease.Grant{}, errEmpty
	}
	units, lasts, retry := l.GetCapacity(), millis(l.GetRefreshIntervalMs()), max(0, l.GetRetryAfterMs())
	switch {
	case units < 0 || units > wants || l.GetLimit() < 0:
		return lease.Grant{}, fmt.Errorf("client: asked for %d units, the service lent %d of a limit of %d", wants, units, l.GetLimit())
	case units == 0:
		return lease.Grant{Limit: l.GetLimit(), Denial: throttlekit.Decision{
			Limit: l.GetLimit(), ResetAtMillis: l.GetExpiryMs(), RetryAfterMillis: retry,
		}}, nil
	case lasts <= 0:
		return lease.Grant{}, fmt.Errorf("client: the service lent %d units for %v", units, lasts)
	}
	return lease.Grant{
		Limit: l.GetLimit(), Units: units, ResetAtMillis: l.GetExpiryMs(), ResetsIn: lasts, Lasts: lasts,
	}, nil
}

// millis is a number of milliseconds as a duration, or the longest one.
func millis(n int64) time.Duration {
	return time.Duration(min(n, int64(maxDuration/time.Millisecond))) * time.Millisecond
}

const maxDuration = time.Duration(1<<63 - 1)
