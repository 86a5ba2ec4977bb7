// Command admitting shares the slots of a backend among clients. It starts a server that lets two reports be made at once,
// and clients that make them: each holds a slot while it works, kept alive by heartbeats, and gives it back at the end.
//
//	go run ./examples/admitting
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// With minLimit below maxLimit, the limit follows from how long the work takes. With distributedConcurrency in place of
// concurrency, servers that share a store share the slots, too.
const policies = `
limiters:
  reports: { concurrency: { minLimit: 2, maxLimit: 2 } }
`

// slotTTL is after how long the server takes a slot back that it hears nothing of.
const slotTTL = 2 * time.Second

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

	c, err := client.Dial(srv.GRPCAddr().String(), client.WithLeaseTTL(slotTTL))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return share(ctx, c)
}

// share makes more reports at once than there are slots.
func share(ctx context.Context, c *client.Client) error {
	// Work that begins and ends in different places holds its slot by Admit.
	night, err := c.Admit(ctx, "reports", "nightly", client.WithHeartbeat())
	if err != nil {
		return err
	}
	if !night.Held() {
		return errors.New("the first report got no slot")
	}
	fmt.Printf("nightly: has a slot, %d of %d left\n", night.Remaining, night.Limit)

	// Work that is one function holds it by Do, which gives it back whatever happens.
	err = c.Do(ctx, "reports", "ann", func(ctx context.Context) error {
		fmt.Println("ann: works")
		refused := c.Do(ctx, "reports", "bob", func(context.Context) error { return errors.New("bob worked without a slot") })
		if _, denied := errors.AsType[*client.DeniedError](refused); !denied {
			return fmt.Errorf("bob: %w", refused)
		}
		fmt.Println("bob: denied, for all slots are taken")
		select {
		case <-night.Reclaimed(): // whoever works on without a slot is one too many
			return errors.New("the slot of the nightly report was lost")
		default:
		}
		return night.Release() //nolint:contextcheck // it has a deadline of its own
	})
	if err != nil {
		return err
	}

	return c.Do(ctx, "reports", "bob", func(context.Context) error { // a context that ends if the slot is lost
		fmt.Println("bob: works")
		return nil
	})
}

// newServer is a server that keeps slots, and what gives back its means.
func newServer() (srv *server.Server, release func() error, err error) {
	file, err := policy.Parse("policies.yaml", []byte(policies))
	if err != nil {
		return nil, nil, err
	}
	built, err := file.Build(policy.Env{})
	if err != nil {
		return nil, nil, err
	}
	svc, err := service.New(service.Config{Policies: built, LeaseTTL: slotTTL})
	if err != nil {
		return nil, nil, err
	}
	srv, err = server.New(svc, server.Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: server.Off})
	if err != nil {
		return nil, nil, errors.Join(err, svc.Close())
	}
	return srv, svc.Close, nil
}
