// Command leased shares one budget among programs that hardly ever ask for it. It starts a server with a federated
// policy, and two clients that lease from it. Between them they admit exactly the limit, at a few round trips.
//
//	go run ./examples/leased
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"sync/atomic"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// The windows are long, so that none ends while the example runs.
const policies = `
limiters:
  global: { strategy: fixedWindow, limit: 100000, period: 10000d, federated: {} }
`

const (
	secret = "a secret that the fleet shares"
	batch  = 1000
)

// leases counts the requests for leases.
type leases struct{ granted, denied atomic.Int64 }

// Decided implements [service.Tap].
func (l *leases) Decided(e service.Event) {
	switch {
	case e.Lease && e.Decision.Allowed:
		l.granted.Add(1)
	case e.Lease:
		l.denied.Add(1)
	}
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	var asked leases
	srv, release, err := newServer(&asked) //nolint:contextcheck // a port is bound at once or not at all
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx) }()

	var admitted [2]int
	var failed [2]error
	var clients sync.WaitGroup
	for i := range admitted {
		clients.Go(func() { admitted[i], failed[i] = spend(ctx, srv.GRPCAddr().String()) })
	}
	clients.Wait()
	stop()
	if err := errors.Join(failed[0], failed[1], <-served); err != nil {
		return err
	}
	fmt.Printf("one client admitted %d requests, the other %d: %d in all, of a limit of 100000\n",
		admitted[0], admitted[1], admitted[0]+admitted[1])
	fmt.Printf("they were lent units %d times, and were told %d times that there were none\n", asked.granted.Load(), asked.denied.Load())
	return nil
}

// newServer is a server that lends, and what gives back its means.
func newServer(tap service.Tap) (srv *server.Server, release func() error, err error) {
	// In a fleet this is a store that the servers share, such as Redis.
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	if err != nil {
		return nil, nil, err
	}
	file, err := policy.Parse("policies.yaml", []byte(policies))
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	built, err := file.Build(policy.Env{Store: store})
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	svc, err := service.New(service.Config{Policies: built, Taps: []service.Tap{tap}})
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	release = func() error { return errors.Join(svc.Close(), store.Close()) }
	srv, err = server.New(svc, server.Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: server.Off, FleetSecret: secret})
	if err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return srv, release, nil
}

// spend is one program of the fleet, which works until it is denied.
func spend(ctx context.Context, addr string) (admitted int, err error) {
	c, err := client.Dial(addr, client.WithFleetSecret(secret))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	limiter, err := c.Fleet().Leased("global", "", batch)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, limiter.Close()) }() //nolint:contextcheck // waits for one request, which has a deadline
	for {
		d, err := limiter.Check(ctx, "")
		if err != nil || !d.Allowed { // then d.RetryAfter() says for how long
			return admitted, err
		}
		admitted++
	}
}
