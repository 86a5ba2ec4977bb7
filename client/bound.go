package client

import (
	"context"

	"github.com/throttlekit/throttlekit-go"
)

var _ throttlekit.Checker = (*BoundPolicy)(nil)

// BoundPolicy is one policy of a service, for code that takes a [throttlekit.Checker] and need not know that the answer
// comes from elsewhere. Its methods are those of [Client].
type BoundPolicy struct {
	client *Client
	policy string
}

// Bind returns the policy of this name. Whether the service has it shows at the first call.
func (c *Client) Bind(policy string) *BoundPolicy { return &BoundPolicy{client: c, policy: policy} }

// Policy is the name of the policy.
func (b *BoundPolicy) Policy() string { return b.policy }

// Check is [Client.Check].
func (b *BoundPolicy) Check(ctx context.Context, key string) (throttlekit.Decision, error) {
	return b.client.Check(ctx, b.policy, key)
}

// CheckN is [Client.CheckN].
func (b *BoundPolicy) CheckN(ctx context.Context, key string, cost int64) (throttlekit.Decision, error) {
	return b.client.CheckN(ctx, b.policy, key, cost)
}

// CheckMany is [Client.CheckMany].
func (b *BoundPolicy) CheckMany(ctx context.Context, keys []string, cost int64) ([]throttlekit.Decision, error) {
	return b.client.CheckMany(ctx, b.policy, keys, cost)
}

// Peek is [Client.Peek].
func (b *BoundPolicy) Peek(ctx context.Context, key string) (throttlekit.Decision, error) {
	return b.client.Peek(ctx, b.policy, key)
}

// Forecast is [Client.Forecast].
func (b *BoundPolicy) Forecast(ctx context.Context, key string, cost int64) (throttlekit.Forecast, error) {
	return b.client.Forecast(ctx, b.policy, key, cost)
}

// Debit is [Client.Debit].
func (b *BoundPolicy) Debit(ctx context.Context, key string, tokens int64) (throttlekit.Decision, error) {
	return b.client.Debit(ctx, b.policy, key, tokens)
}
