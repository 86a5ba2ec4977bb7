package redisstore

import (
	"context"
	"errors"

	"github.com/redis/rueidis"

	"github.com/throttlekit/throttlekit-go/store/redis/internal/engine"
)

// client makes a rueidis client one of the engine. None of its commands is marked as
// retryable, so that rueidis sends again only what a server has refused to run.
type client struct {
	inner rueidis.Client
	gate  gate
}

func newClient(inner rueidis.Client) *client { return &client{inner: inner, gate: newGate()} }

// Eval implements [engine.Client].
func (c *client) Eval(ctx context.Context, call engine.Call) (engine.Reply, error) {
	if !c.gate.straight() {
		return c.evalApart(ctx, call)
	}
	reply, err := c.eval(ctx, call)
	c.gate.leave(err)
	return reply, err
}

// evalApart is by itself because what a goroutine uses is allocated.
func (c *client) evalApart(ctx context.Context, call engine.Call) (engine.Reply, error) {
	outcome, err := apart(ctx, &c.gate, func() engine.Outcome {
		reply, err := c.eval(ctx, call)
		return engine.Outcome{Reply: reply, Err: err}
	})
	if err == nil {
		err = outcome.Err
	}
	c.gate.heed(err)
	return outcome.Reply, err
}

func (c *client) eval(ctx context.Context, call engine.Call) (engine.Reply, error) {
	return parse(c.inner.Do(ctx, c.command(call)))
}

// EvalEach implements [engine.Client].
func (c *client) EvalEach(ctx context.Context, calls []engine.Call) []engine.Outcome {
	if c.gate.straight() {
		outcomes := c.evalEach(ctx, calls)
		c.gate.leave(firstError(outcomes))
		return outcomes
	}
	outcomes, err := apart(ctx, &c.gate, func() []engine.Outcome { return c.evalEach(ctx, calls) })
	if err != nil {
		outcomes = make([]engine.Outcome, len(calls))
		for i := range outcomes {
			outcomes[i].Err = err
		}
	}
	c.gate.heed(firstError(outcomes))
	return outcomes
}

func (c *client) evalEach(ctx context.Context, calls []engine.Call) []engine.Outcome {
	commands := make(rueidis.Commands, len(calls))
	for i := range calls {
		commands[i] = c.command(calls[i])
	}
	outcomes := make([]engine.Outcome, len(calls))
	for i, result := range c.inner.DoMulti(ctx, commands...) {
		outcomes[i].Reply, outcomes[i].Err = parse(result)
	}
	return outcomes
}

func firstError(outcomes []engine.Outcome) error {
	for i := range outcomes {
		if outcomes[i].Err != nil {
			return outcomes[i].Err
		}
	}
	return nil
}

func (c *client) command(call engine.Call) rueidis.Completed {
	keys := int64(1 + len(call.Keys))
	if call.Whole {
		return c.inner.B().Eval().Script(call.Script.Text).Numkeys(keys).Key(call.Key).Key(call.Keys...).Arg(call.Args...).Build()
	}
	return c.inner.B().Evalsha().Sha1(call.Script.SHA1).Numkeys(keys).Key(call.Key).Key(call.Keys...).Arg(call.Args...).Build()
}

// Unlink implements [engine.Client].
func (c *client) Unlink(ctx context.Context, key string) error {
	unlink := func() error { return translate(c.inner.Do(ctx, c.inner.B().Unlink().Key(key).Build()).Error()) }
	if c.gate.straight() {
		err := unlink()
		c.gate.leave(err)
		return err
	}
	outcome, err := apart(ctx, &c.gate, unlink)
	if err == nil {
		err = outcome
	}
	c.gate.heed(err)
	return err
}

// Sharding implements [engine.Client].
func (c *client) Sharding(context.Context) (engine.Sharding, error) {
	if c.inner.Mode() == rueidis.ClientModeCluster {
		return engine.BySlot, nil
	}
	return engine.Whole, nil
}

// Close implements [engine.Client]. The client is the program's own.
func (c *client) Close() {}

func parse(result rueidis.RedisResult) (reply engine.Reply, err error) {
	values, err := result.ToArray()
	if err != nil {
		return reply, translate(err)
	}
	if len(values) > 0 && !values[0].IsInt64() {
		reply.Texts = make([]string, len(values))
		for i := range values {
			if reply.Texts[i], err = values[i].ToString(); err != nil {
				return reply, translate(err)
			}
		}
		return reply, nil
	}
	ints := reply.Few[:]
	if len(values) > len(ints) {
		reply.Many = make([]int64, len(values))
		ints = reply.Many
	}
	reply.Count = len(values)
	for i := range values {
		if ints[i], err = values[i].ToInt64(); err != nil {
			return reply, translate(err)
		}
	}
	return reply, nil
}

// translate makes an error of rueidis one that the engine knows.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if reply, ok := rueidis.IsRedisErr(err); ok {
		return &engine.ServerError{Text: reply.Error()}
	}
	if errors.Is(err, rueidis.ErrClosing) {
		return engine.ErrClientClosed
	}
	return err
}
