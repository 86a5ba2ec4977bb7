package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// AdmitOption says more about what [Client.Admit] is asked to admit.
type AdmitOption func(*admitOptions)

type admitOptions struct {
	cost, value int64
	hold        time.Duration
	keep        bool
}

// WithCost charges a cost from 1 to 2^53-1 on the cost axis of the policy. Defaults to 1.
func WithCost(units int64) AdmitOption { return func(o *admitOptions) { o.cost = units } }

// WithValue says what the request is worth against others, from 1 to 2^53-1, to a policy that prices its capacity. Others
// ignore it. Defaults to 1.
func WithValue(value int64) AdmitOption { return func(o *admitOptions) { o.value = value } }

// WithHold says how long the work is going to take, in whole milliseconds, to a policy that prices its capacity. Others
// ignore it. Defaults to unknown.
func WithHold(d time.Duration) AdmitOption { return func(o *admitOptions) { o.hold = d } }

// WithHeartbeat keeps the lease alive until the admission ends, by one call in the background for all such admissions of the
// client, three times in each term of the lease, of which one may fail. The service says how long a term is; see
// [WithLeaseTTL] for one that does not. Without it the service takes the slot back when the first term is over, after
// two seconds unless the service was told otherwise.
func WithHeartbeat() AdmitOption { return func(o *admitOptions) { o.keep = true } }

// Admission is the answer to [Client.Admit]. One that is held ends with Release or Drop; if its holder is gone, the service
// takes the slot back as dropped when the lease is over. It is safe for concurrent use.
type Admission struct {
	throttlekit.Decision

	// Binding is the axis that denied: "concurrency", "rate" or "cost". Empty if the request was allowed, priced out, or
	// answered by the mode of [WithUnavailable].
	Binding string
	// PolicyDenied says that the policy's own pricing refused the request.
	PolicyDenied bool

	client    *Client
	lease     string
	expires   int64
	reclaimed chan struct{} // nil without a slot

	mu    sync.Mutex
	ended bool
	lost  bool
}

// Admit asks for leave on every axis of a policy at once. A leave holds a slot of the policy's concurrency until it is
// released; a denial holds and charges nothing. Keys are those of [Client.Check]. A policy may let requests wait for a slot,
// within the deadline of ctx or [WithTimeout].
//
// Admit is sent once. After [ErrUnavailable] and both context errors it is unknown whether it was charged; a slot that was
// granted and never heard of goes back by itself when its lease is over. A decision by the mode of [WithUnavailable] holds
// no slot.
func (c *Client) Admit(ctx context.Context, policy, key string, opts ...AdmitOption) (*Admission, error) {
	o := admitOptions{cost: 1, value: 1}
	for _, opt := range opts {
		opt(&o)
	}
	if err := errors.Join(validUnits("cost", o.cost), validUnits("value", o.value), validHold(o.hold)); err != nil {
		return nil, err
	}
	var res throttlekitv1.AdmitResponse
	req := &throttlekitv1.AdmitRequest{Policy: policy, Key: key, Cost: o.cost, Value: o.value, Hold: o.hold.Milliseconds()}
	sent := c.elapsed()
	if err := c.call(ctx, throttlekitv1.RateLimiter_Admit_FullMethodName, req, &res); err != nil {
		d, err := c.standIn(err)
		if err != nil {
			return nil, err
		}
		return &Admission{Decision: d}, nil
	}
	d, err := decision(res.GetDecision())
	if err != nil {
		return nil, err
	}
	a := &Admission{Decision: d, Binding: res.GetBindingAxis(), PolicyDenied: res.GetPolicyDenied()}
	if res.GetLeaseId() == "" {
		return a, nil
	}
	a.client, a.lease, a.expires, a.reclaimed = c, res.GetLeaseId(), res.GetLeaseExpiresAt(), make(chan struct{})
	if !d.Allowed {
		//nolint:contextcheck // a slot goes back whatever the caller's context says
		return nil, errors.Join(errors.New("client: the service denied a request and gave it a slot"), a.Release())
	}
	if o.keep {
		c.beats.add(a, sent, c.term(res.GetLeaseTtlMs()))
	}
	return a, nil
}

// term is how long a lease lasts of which the service says that it lasts so long, if it says anything.
func (c *Client) term(toldMillis int64) time.Duration {
	if toldMillis <= 0 {
		return c.leaseTTL
	}
	return time.Duration(min(toldMillis, maxLeaseTTL.Milliseconds())) * time.Millisecond
}

func validHold(hold time.Duration) error {
	if hold < 0 {
		return &throttlekit.InvalidError{Field: "hold", Value: hold, Rule: "must not be negative"}
	}
	return nil
}

// Lease is the id of the lease and when it is over unless a heartbeat comes first, in epoch milliseconds of the service's
// clock. Both are zero if no slot was granted.
func (a *Admission) Lease() (id string, expiresAtMillis int64) { return a.lease, a.expires }

// Held says whether the admission has a slot that it has neither ended nor, as far as is known, lost.
func (a *Admission) Held() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lease != "" && !a.ended && !a.lost
}

// Reclaimed is closed when the service has taken the slot back, or has not answered heartbeats for as long as a lease
// lasts, or the client was closed, so that somebody else may have it. Work that goes on then is more than the policy
// allows. It is never closed without [WithHeartbeat], nor after Release or Drop, and nil without a slot.
func (a *Admission) Reclaimed() <-chan struct{} { return a.reclaimed }

// Release gives the slot back; the policy learns from how long the work took. Only the first Release or Drop does
// anything. After an error it is unknown whether the service heard of it; if not, it takes the slot back by itself, as
// dropped, when the lease is over. Within [WithTimeout] an answer or an error comes, or within [DefaultTimeout] if that is 0.
func (a *Admission) Release() error { return a.end(false) }

// Drop gives the slot back for work that failed because of load, such as a timeout, which lowers the policy's limit. It is
// otherwise like Release.
func (a *Admission) Drop() error { return a.end(true) }

func (a *Admission) end(dropped bool) error {
	a.mu.Lock()
	already := a.ended || a.lease == ""
	a.ended = true
	a.mu.Unlock()
	if already {
		return nil
	}
	a.client.beats.remove(a)
	// The caller's context is left out: it may be over, which is often why the work is.
	ctx, cancel := context.WithTimeout(context.Background(), a.client.bound())
	defer cancel()
	req := &throttlekitv1.ReleaseRequest{LeaseId: a.lease, Dropped: dropped}
	return a.client.call(ctx, throttlekitv1.RateLimiter_Release_FullMethodName, req, &throttlekitv1.ReleaseResponse{})
}

// isLost says whether the slot is gone, as far as is known.
func (a *Admission) isLost() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}

// lose says that the slot is gone.
func (a *Admission) lose() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.lost && !a.ended {
		a.lost = true
		close(a.reclaimed)
	}
}

// ErrDenied marks work that [Client.Do] did not begin; the error is a [*DeniedError].
var ErrDenied = errors.New("client: denied")

// ErrReclaimed is the cause of the end of the context of work whose slot is gone, and matches the error of [Client.Do] then.
var ErrReclaimed = errors.New("client: the slot was reclaimed")

// DeniedError says why [Client.Do] did not begin its work. It matches [ErrDenied].
type DeniedError struct {
	throttlekit.Decision

	// Policy is the name of the policy; Binding and PolicyDenied are those of the [Admission].
	Policy       string
	Binding      string
	PolicyDenied bool
}

// Error names the policy and what denied.
func (e *DeniedError) Error() string {
	by := e.Binding
	if e.PolicyDenied {
		by = "price"
	}
	if by != "" {
		by = " by " + by
	}
	if e.RetryAfterMillis == 0 {
		return fmt.Sprintf("client: %q denied%s", e.Policy, by)
	}
	return fmt.Sprintf("client: %q denied%s, retry in %v", e.Policy, by, e.RetryAfter())
}

// Unwrap makes [errors.Is] find ErrDenied.
func (*DeniedError) Unwrap() error { return ErrDenied }

// Do runs f while it holds a slot of a policy, kept alive by heartbeats. If the slot is lost, the context of f ends with the
// cause [ErrReclaimed]. The slot is released when f returns nil, and dropped when f returns an error or panics: of errors, Do
// takes load to be the cause, timeouts included, and so the end of ctx by its deadline. Only when ctx was cancelled and f
// says so (by [context.Canceled], the cause, or the gRPC status) it is released: callers who leave say nothing about
// load. The wire has no way to give a slot back that teaches the policy nothing at all.
//
// The error is that of f, joined by [ErrReclaimed] if f ended because the slot was lost; if the request was denied a
// [*DeniedError]; otherwise that of [Client.Admit]. Whether the release reached the service is no part of it: the service
// takes the slot back by itself.
func (c *Client) Do(ctx context.Context, policy, key string, f func(ctx context.Context) error, opts ...AdmitOption) error {
	a, err := c.Admit(ctx, policy, key, append(slices.Clip(opts), WithHeartbeat())...)
	if err != nil {
		return err
	}
	if !a.Allowed {
		return &DeniedError{Decision: a.Decision, Policy: policy, Binding: a.Binding, PolicyDenied: a.PolicyDenied}
	}
	within, cancel := context.WithCancelCause(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-a.Reclaimed():
			cancel(ErrReclaimed)
		case <-within.Done():
		}
	}()
	end := a.Drop
	defer func() {
		cancel(nil)
		<-stopped
		_ = end() // as documented
	}()
	err = f(within)
	switch {
	case err == nil:
		end = a.Release
	case !cutShort(within, err):
	case a.isLost() && errors.Is(context.Cause(within), ErrReclaimed):
		if !errors.Is(err, ErrReclaimed) {
			err = fmt.Errorf("%w: %w", ErrReclaimed, err)
		}
	case errors.Is(ctx.Err(), context.Canceled):
		end = a.Release
	}
	return err
}

// cutShort says whether work that failed says that it was because a context was cancelled, or this one ended.
func cutShort(ctx context.Context, err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)) || status.Code(err) == codes.Canceled
}
