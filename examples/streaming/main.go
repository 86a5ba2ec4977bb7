// Command streaming meters the answers of a model while they stream. It starts a server with a token budget, and a client
// that debits every piece of an answer before it hands it on, and stops at the first refusal.
//
//	go run ./examples/streaming
package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log"
	"slices"
	"strings"

	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// The windows are long, so that none ends while the example runs. With fleetBudget in place of tokenBudget, servers that
// share a store share the budgets, too.
const policies = `
limiters:
  tokens: { tokenBudget: { budget: 18, window: 10000d } }
`

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	srv, release, err := newServer() //nolint:contextcheck // a port is bound at once or not at all
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx) }()
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()

	c, err := client.Dial(srv.GRPCAddr().String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for _, asked := range []struct{ user, prompt string }{
		{"ann", "Where is a limit kept?"},
		{"ann", "Tell me a story."},
		{"ann", "Go on."},
		{"bob", "Where is a limit kept?"},
	} {
		if err := answer(ctx, c.Bind("tokens"), asked.user, asked.prompt); err != nil {
			return err
		}
	}
	return nil
}

// answer hands on what the model says for as long as the budget of the user lasts. The piece that crosses the budget is
// still handed on: it was booked in full.
func answer(ctx context.Context, budget *client.BoundPolicy, user, prompt string) error {
	fmt.Printf("%s asks: %s\n", user, prompt)
	var used int64
	for text, tokens := range generate(prompt) {
		d, err := budget.Debit(ctx, user, tokens)
		switch {
		case err != nil:
			// Whether this piece was booked is unknown. It is not sent again, and not handed on.
			return fmt.Errorf("after %d tokens: %w", used, err)
		case !d.Allowed: // d.RetryAfter() says for how long
			fmt.Printf("  cut after %d tokens: the budget of %d tokens is used up\n", used, d.Limit)
			return nil
		}
		used += tokens
		fmt.Printf("  %s (%d of %d left)\n", text, d.Remaining, d.Limit)
	}
	fmt.Printf("  complete: %d tokens\n", used)
	return nil
}

// generate stands in for a model. It yields its answer in pieces, each with the number of its tokens; here a token is a word.
func generate(prompt string) iter.Seq2[string, int64] {
	text := "a record of two numbers for each key"
	if !strings.HasSuffix(prompt, "?") {
		text = "once upon a time there was a stream that nobody metered and it went on and on and on"
	}
	return func(yield func(string, int64) bool) {
		for words := range slices.Chunk(strings.Fields(text), 4) {
			if !yield(strings.Join(words, " "), int64(len(words))) {
				return
			}
		}
	}
}

// newServer is a server that keeps token budgets, and what gives back its means.
func newServer() (srv *server.Server, release func() error, err error) {
	file, err := policy.Parse("policies.yaml", []byte(policies))
	if err != nil {
		return nil, nil, err
	}
	built, err := file.Build(policy.Env{})
	if err != nil {
		return nil, nil, err
	}
	svc, err := service.New(service.Config{Policies: built})
	if err != nil {
		return nil, nil, err
	}
	srv, err = server.New(svc, server.Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: server.Off})
	if err != nil {
		return nil, nil, errors.Join(err, svc.Close())
	}
	return srv, svc.Close, nil
}
