package client

import (
	"context"
	"errors"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
)

var _ throttlekit.Checker = (*Leased)(nil)

// LeaseOption changes how [Fleet.Leased] sets a limiter up.
type LeaseOption func(*lease.HolderConfig)

// WithLowWater says at how many units left the next batch is fetched ahead, so that no check waits for it. 0 fetches when
// a check is short; negative is an error. Defaults to half of the batch.
func WithLowWater(units int64) LeaseOption {
	return func(c *lease.HolderConfig) { c.LowWater = units }
}

// WithElapsed replaces the monotonic clock by which leases end, for tests and simulations.
func WithElapsed(elapsed func() time.Duration) LeaseOption {
	return func(c *lease.HolderConfig) { c.Elapsed = elapsed }
}

// Leased is a limiter that spends units of one budget which the service has lent it: most checks cost a counter instead
// of a round trip. Whoever shares the budget, all together are admitted at most the limit in each window of the service's
// store, and what this one holds ends with its window at the latest. It is safe for concurrent use; however many checks
// wait for units, one request for them is under way.
//
// Leased measures by the monotonic clock, from the moment at which it sent a request; it never compares wall clocks.
type Leased struct {
	client *Client
	holder *lease.Holder
}

// Leased returns a limiter that leases batch units, from 1 to 2^53-1, of a domain's budget at a time. An empty domain
// stands for the policy's name. The error matches [throttlekit.ErrInvalid]; whether the service has the policy, and lends
// to this caller, shows at the first check.
func (f *Fleet) Leased(policy, domain string, batch int64, opts ...LeaseOption) (*Leased, error) {
	source := &lender{fleet: f, policy: policy, timeout: f.client.timeout}
	if source.timeout == 0 {
		source.timeout = DefaultTimeout // a request that never ended would keep every check waiting
	}
	config := lease.HolderConfig{Source: source, Key: domain, Batch: batch, LowWater: batch / 2, Timeout: 2 * source.timeout}
	for _, opt := range opts {
		opt(&config)
	}
	if err := errors.Join(validUnits("batch", batch), validDomain(domain)); err != nil {
		return nil, err
	}
	holder, err := lease.NewHolder(config)
	if err != nil {
		return nil, err
	}
	return &Leased{client: f.client, holder: holder}, nil
}

// Check is [Leased.CheckN] with a cost of 1.
func (l *Leased) Check(ctx context.Context, key string) (throttlekit.Decision, error) {
	return l.CheckN(ctx, key, 1)
}

// CheckN decides on a request of a cost from 1 to 2^53-1, whole or not at all. The key makes Leased a
// [throttlekit.Checker] and changes nothing: the domain's budget pays for all of them.
//
// In decisions that allow, Remaining is what is left here, not everywhere. Decisions that deny come from the service, which
// is asked when units are short: if it cannot be reached, what is held is spent until it ends, and then [WithUnavailable]
// says what to answer. The other errors are those of [Client.CheckN], and ErrUnauthenticated.
func (l *Leased) CheckN(ctx context.Context, _ string, cost int64) (throttlekit.Decision, error) {
	if err := validUnits("cost", cost); err != nil {
		return throttlekit.Decision{}, err
	}
	d, err := l.holder.CheckN(ctx, float64(cost))
	if err != nil {
		return l.client.standIn(err)
	}
	return d, nil
}

// Held is how many units could be spent now without asking the service.
func (l *Leased) Held() int64 { return int64(l.holder.Held()) }

// Close waits for what is under way. Units that are held are lost until the window ends, since the contract has no way to
// give them back; small batches lose less. Checks that come later report [throttlekit.ErrClosed].
func (l *Leased) Close() error { return l.holder.Close(context.Background()) }

// lender is the service as a source of leases.
type lender struct {
	fleet   *Fleet
	policy  string
	timeout time.Duration
}

// Lease implements [lease.Source]. The deadline of ctx is the holder's, later than the client's own. It is left out, since
// a deadline that has passed would be taken for one of the caller's, which no mode answers.
func (s *lender) Lease(ctx context.Context, domain string, _, wants int64) (lease.Grant, error) {
	return s.fleet.reserve(context.WithoutCancel(ctx), s.timeout, s.policy, domain, wants)
}

// Return implements [lease.Source].
func (*lender) Return(context.Context, string, int64, int64) error { return nil }
