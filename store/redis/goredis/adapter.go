package goredis

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/throttlekit/throttlekit-go/store/redis/internal/engine"
)

// adapter makes a go-redis client one of the engine.
type adapter struct {
	inner    redis.UniversalClient
	sharding engine.Sharding
	heeds    bool          // the client returns when a context ends
	room     chan struct{} // one place for each goroutine of a client that does not
}

// mostApart bounds the calls in goroutines. More callers than that wait for their turn, or leave without a call.
const mostApart = 512

func newAdapter(client redis.UniversalClient) *adapter {
	a := &adapter{inner: client, room: make(chan struct{}, mostApart)}
	switch c := client.(type) {
	case *redis.Client:
		a.heeds = c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		a.heeds, a.sharding = c.Options().ContextTimeoutEnabled, engine.BySlot
	case *redis.Ring:
		a.heeds, a.sharding = c.Options().ContextTimeoutEnabled, engine.ByTag
	default:
		a.sharding = engine.ByTag // a client of another make may spread keys; a tag keeps them together on all
	}
	return a
}

// once is a command that go-redis must not send again after an error of the connection: the
// server may have run it.
type once struct{ *redis.Cmd }

// NoRetry overrides that of the command.
func (once) NoRetry() bool { return true }

func command(ctx context.Context, call engine.Call) once {
	args := make([]any, 0, 4+len(call.Keys)+len(call.Args))
	if call.Whole {
		args = append(args, "eval", call.Script.Text)
	} else {
		args = append(args, "evalsha", call.Script.SHA1)
	}
	args = append(args, 1+len(call.Keys), call.Key)
	for _, key := range call.Keys {
		args = append(args, key)
	}
	for _, arg := range call.Args {
		args = append(args, arg)
	}
	return once{redis.NewCmd(ctx, args...)}
}

// Eval implements [engine.Client].
func (a *adapter) Eval(ctx context.Context, call engine.Call) (engine.Reply, error) {
	if a.heeds {
		return a.eval(ctx, call)
	}
	outcome, err := engine.Await(ctx, a.room, func() engine.Outcome {
		reply, err := a.eval(ctx, call)
		return engine.Outcome{Reply: reply, Err: err}
	}, nothing)
	if err == nil {
		err = outcome.Err
	}
	return outcome.Reply, err
}

func nothing() {}

func (a *adapter) eval(ctx context.Context, call engine.Call) (engine.Reply, error) {
	cmd := command(ctx, call)
	if err := a.inner.Process(ctx, cmd); err != nil {
		return engine.Reply{}, translate(err)
	}
	return parse(cmd)
}

// EvalEach implements [engine.Client].
func (a *adapter) EvalEach(ctx context.Context, calls []engine.Call) []engine.Outcome {
	if a.heeds {
		return a.evalEach(ctx, calls)
	}
	outcomes, err := engine.Await(ctx, a.room, func() []engine.Outcome { return a.evalEach(ctx, calls) }, nothing)
	if err != nil {
		outcomes = make([]engine.Outcome, len(calls))
		for i := range outcomes {
			outcomes[i].Err = err
		}
	}
	return outcomes
}

func (a *adapter) evalEach(ctx context.Context, calls []engine.Call) []engine.Outcome {
	pipe := a.inner.Pipeline()
	commands := make([]once, len(calls))
	outcomes := make([]engine.Outcome, len(calls))
	for i := range calls {
		commands[i] = command(ctx, calls[i])
		if err := pipe.Process(ctx, commands[i]); err != nil {
			commands[i].SetErr(err)
		}
	}
	_, err := pipe.Exec(ctx)
	var reply redis.Error
	for i := range commands {
		switch {
		case commands[i].Err() != nil:
			outcomes[i].Err = translate(commands[i].Err())
		case err != nil && !errors.As(err, &reply): // the pipeline as a whole has failed
			outcomes[i].Err = translate(err)
		default:
			outcomes[i].Reply, outcomes[i].Err = parse(commands[i])
		}
	}
	return outcomes
}

// Unlink implements [engine.Client].
func (a *adapter) Unlink(ctx context.Context, key string) error {
	unlink := func() error { return translate(a.inner.Unlink(ctx, key).Err()) }
	if a.heeds {
		return unlink()
	}
	outcome, err := engine.Await(ctx, a.room, unlink, nothing)
	if err == nil {
		err = outcome
	}
	return err
}

// Sharding implements [engine.Client].
func (a *adapter) Sharding(context.Context) (engine.Sharding, error) { return a.sharding, nil }

// Close implements [engine.Client]. The client is the program's own.
func (a *adapter) Close() {}

func parse(cmd once) (reply engine.Reply, err error) {
	values, err := cmd.Slice()
	if err != nil {
		return reply, translate(err)
	}
	if _, ints := first(values).(int64); ints && len(values) > len(reply.Few) {
		reply.Many = make([]int64, 0, len(values))
	}
	for _, value := range values {
		switch v := value.(type) {
		case string:
			reply.Texts = append(reply.Texts, v)
		case int64:
			if reply.Many != nil {
				reply.Many = append(reply.Many, v)
			} else {
				reply.Few[reply.Count] = v
			}
			reply.Count++
		default:
			return reply, fmt.Errorf("go-redis: a script answered with a %T", value)
		}
	}
	return reply, nil
}

func first(values []any) any {
	if len(values) == 0 {
		return nil
	}
	return values[0]
}

// translate makes an error of go-redis one that the engine knows.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if reply, ok := errors.AsType[redis.Error](err); ok {
		return &engine.ServerError{Text: reply.Error()}
	}
	if errors.Is(err, redis.ErrClosed) {
		return engine.ErrClientClosed
	}
	return err
}
