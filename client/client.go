package client

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// Client asks one service. It is safe for concurrent use, and one is enough for a program.
type Client struct {
	conn        grpc.ClientConnInterface
	owned       *grpc.ClientConn // nil if the caller made the connection
	timeout     time.Duration
	unavailable Unavailable
	onDegraded  func(error)
	secret      string // for Fleet, empty for none
	options     []grpc.CallOption
	leaseTTL    time.Duration // of services that do not tell
	beats       *beats
	born        time.Time // whose monotonic reading leases are measured by

	degraded atomic.Uint64
	closed   atomic.Bool
}

// Dial returns a client for the service at addr, "host:port" or a target that grpc-go understands. It connects when it
// is first asked, so it succeeds while the service is down; what it reports are wrong options, by errors that match
// [throttlekit.ErrInvalid].
func Dial(addr string, opts ...Option) (*Client, error) {
	o, err := settle(addr, opts)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: o.conn, timeout: o.timeout, unavailable: o.unavailable, onDegraded: o.degraded, secret: o.secret}
	c.born = time.Now()
	c.leaseTTL = o.leaseTTL
	c.beats = newBeats(c)
	if o.conn != nil {
		c.options = borrowedCallOptions
		return c, nil
	}
	c.options = callOptions
	c.owned, err = grpc.NewClient(addr, o.dialOptions()...)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c.conn = c.owned
	return c, nil
}

// Close ends the connection, unless it came by [WithConn], and heartbeats: slots that are still kept by them count as lost
// at once, which ends the context of work that [Client.Do] runs, and the service takes them back when their leases are
// over. To have it learn how the work went, and sooner, end all work first. Running and later calls report
// [throttlekit.ErrClosed].
func (c *Client) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.beats.close()
	if c.owned == nil {
		return nil
	}
	return c.owned.Close()
}

// elapsed is the time since the client was made.
func (c *Client) elapsed() time.Duration {
	return time.Since(c.born)
}

// bound is how long a call may take that nobody else bounds.
func (c *Client) bound() time.Duration {
	if c.timeout > 0 {
		return c.timeout
	}
	return DefaultTimeout
}

// Degraded is how many calls were answered by the mode of [WithUnavailable] so far.
func (c *Client) Degraded() uint64 { return c.degraded.Load() }

// Check asks whether one request of cost 1 on a key may go ahead, and charges it if so. A key is any bytes, up to 64 KiB;
// services of other makes may insist on UTF-8.
func (c *Client) Check(ctx context.Context, policy, key string) (throttlekit.Decision, error) {
	return c.CheckN(ctx, policy, key, 1)
}

// CheckN is [Client.Check] for a cost from 1 to 2^53-1, charged whole or not at all.
func (c *Client) CheckN(ctx context.Context, policy, key string, cost int64) (throttlekit.Decision, error) {
	if err := validUnits("cost", cost); err != nil {
		return throttlekit.Decision{}, err
	}
	var res throttlekitv1.CheckResponse
	req := &throttlekitv1.CheckRequest{Policy: policy, Key: key, Cost: cost}
	if err := c.call(ctx, throttlekitv1.RateLimiter_Check_FullMethodName, req, &res); err != nil {
		return c.standIn(err)
	}
	return decision(res.GetDecision())
}

// CheckMany asks for one request of the given cost, from 1 to 2^53-1, for each key, in one call. Decisions come in the
// order of the keys; each key stands for itself, and one given twice is charged twice. A service takes 10,000 keys at
// most.
func (c *Client) CheckMany(ctx context.Context, policy string, keys []string, cost int64) ([]throttlekit.Decision, error) {
	if err := validUnits("cost", cost); err != nil {
		return nil, err
	}
	var res throttlekitv1.CheckManyResponse
	req := &throttlekitv1.CheckManyRequest{Policy: policy, Keys: keys, Cost: cost}
	decisions := make([]throttlekit.Decision, len(keys))
	if err := c.call(ctx, throttlekitv1.RateLimiter_CheckMany_FullMethodName, req, &res); err != nil {
		d, err := c.standIn(err)
		if err != nil {
			return nil, err
		}
		for i := range decisions {
			decisions[i] = d
		}
		return decisions, nil
	}
	if len(res.GetDecisions()) != len(keys) {
		return nil, fmt.Errorf("client: the service answered %d decisions to %d keys", len(res.GetDecisions()), len(keys))
	}
	for i, wire := range res.GetDecisions() {
		d, err := decision(wire)
		if err != nil {
			return nil, err
		}
		decisions[i] = d
	}
	return decisions, nil
}

// Peek is the decision that a check of cost 1 would get now. It charges nothing.
func (c *Client) Peek(ctx context.Context, policy, key string) (throttlekit.Decision, error) {
	var res throttlekitv1.PeekResponse
	req := &throttlekitv1.PeekRequest{Policy: policy, Key: key}
	if err := c.call(ctx, throttlekitv1.RateLimiter_Peek_FullMethodName, req, &res); err != nil {
		return throttlekit.Decision{}, err
	}
	return decision(res.GetDecision())
}

// Forecast says how many requests of the given cost, from 1 to 2^53-1, the key could spend now, and when it gets more.
// It charges nothing.
func (c *Client) Forecast(ctx context.Context, policy, key string, cost int64) (throttlekit.Forecast, error) {
	if err := validUnits("cost", cost); err != nil {
		return throttlekit.Forecast{}, err
	}
	var res throttlekitv1.ForecastResponse
	req := &throttlekitv1.ForecastRequest{Policy: policy, Key: key, Cost: cost}
	if err := c.call(ctx, throttlekitv1.RateLimiter_Forecast_FullMethodName, req, &res); err != nil {
		return throttlekit.Forecast{}, err
	}
	f := res.GetForecast()
	if f == nil {
		return throttlekit.Forecast{}, errEmpty
	}
	return throttlekit.Forecast{
		SpendableNow:          f.GetSpendableNow(),
		NextReplenishAtMillis: f.GetNextReplenishAt(),
		FullAtMillis:          f.GetFullAt(),
	}, nil
}

// Debit books tokens that were spent already, from 1 to 2^53-1, against the budget of a key, for policies that keep token
// budgets. It is refused only once the budget is used up: the debit that crosses the line is allowed and booked in full,
// with none Remaining, and a refused one books nothing. So what a window books exceeds its budget by at most the last debit
// less one: debit small pieces, before they are handed on, and stop at the first refusal. Keys are those of [Client.Check].
//
// A debit is sent once. After [ErrUnavailable] and after both context errors it is unknown whether it was booked: sending
// it again may book it twice, and not doing so may leave it out. A decision by the mode of [WithUnavailable] says nothing
// about that either.
func (c *Client) Debit(ctx context.Context, policy, key string, tokens int64) (throttlekit.Decision, error) {
	if err := validUnits("tokens", tokens); err != nil {
		return throttlekit.Decision{}, err
	}
	var res throttlekitv1.DebitResponse
	req := &throttlekitv1.DebitRequest{Policy: policy, Key: key, Tokens: tokens}
	if err := c.call(ctx, throttlekitv1.RateLimiter_Debit_FullMethodName, req, &res); err != nil {
		return c.standIn(err)
	}
	return decision(res.GetDecision())
}

// callOptions are the same for every call. The generated stubs would make a slice for each, and leave no way to give a
// connection of the caller's our codec.
var callOptions = []grpc.CallOption{grpc.StaticMethod(), grpc.ForceCodecV2(newCodec())}

// borrowedCallOptions are those on a connection of the caller's, which may have a retry policy, in its options or in a
// service config found in DNS. With no room to keep a request in, grpc-go cannot send it again once it has been sent.
var borrowedCallOptions = append([]grpc.CallOption{grpc.MaxRetryRPCBufferSize(0)}, callOptions...)

// call runs one method within the client's timeout, unless the caller has set a deadline.
func (c *Client) call(ctx context.Context, method string, req, res any) error {
	return c.callWithin(ctx, c.timeout, method, req, res)
}

func (c *Client) callWithin(ctx context.Context, timeout time.Duration, method string, req, res any) error {
	bounded := ctx
	if _, has := ctx.Deadline(); !has && timeout > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if c.closed.Load() {
		return throttlekit.ErrClosed
	}
	if err := c.conn.Invoke(bounded, method, req, res, c.options...); err != nil {
		return c.explain(ctx, err)
	}
	return nil
}

// standIn is the decision of the unavailable mode, if err is for it, and err otherwise.
func (c *Client) standIn(err error) (throttlekit.Decision, error) {
	if c.unavailable == ReturnError || !errors.Is(err, ErrUnavailable) {
		return throttlekit.Decision{}, err
	}
	c.degraded.Add(1)
	if c.onDegraded != nil {
		c.onDegraded(err)
	}
	return throttlekit.Decision{Allowed: c.unavailable == FailOpen}, nil
}

// errEmpty is a breach of the contract. Read as it stands, it would be a denial that nobody decided.
var errEmpty = errors.New("client: the service answered without a decision")

func decision(d *throttlekitv1.Decision) (throttlekit.Decision, error) {
	if d == nil {
		return throttlekit.Decision{}, errEmpty
	}
	return throttlekit.Decision{
		Allowed:          d.GetAllowed(),
		Limit:            d.GetLimit(),
		Remaining:        d.GetRemaining(),
		ResetAtMillis:    d.GetResetAt(),
		RetryAfterMillis: d.GetRetryAfterMs(),
	}, nil
}

// validUnits refuses what the service would refuse, and 0, which the wire takes for 1: a request that was reckoned to
// cost nothing must not be charged by a convention.
func validUnits(field string, units int64) error {
	if units >= 1 && units <= throttlekit.MaxSafe {
		return nil
	}
	return &throttlekit.InvalidError{Field: field, Value: units, Rule: "must be from 1 to 9007199254740991"}
}
