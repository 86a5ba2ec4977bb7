package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/client"
)

// three stands in for a service: its only policy, "api", allows costs up to 3 and keeps no record.
type three struct {
	throttlekitv1.UnimplementedRateLimiterServer
}

func (three) Check(_ context.Context, req *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
	return &throttlekitv1.CheckResponse{Decision: &throttlekitv1.Decision{
		Allowed: req.GetCost() <= 3, Limit: 3, Remaining: max(0, 3-req.GetCost()),
	}}, nil
}

func startService() (addr string, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer()
	throttlekitv1.RegisterRateLimiterServer(server, three{})
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), server.Stop
}

func Example() {
	addr, stop := startService()
	defer stop()

	c, err := client.Dial(addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	ctx := context.Background()
	for _, cost := range []int64{1, 4} {
		d, err := c.CheckN(ctx, "api", "ann", cost)
		fmt.Println(d.Allowed, d.Remaining, err)
	}
	_, err = c.Peek(ctx, "api", "ann")
	fmt.Println(errors.Is(err, throttlekit.ErrUnsupported))

	// Output:
	// true 2 <nil>
	// false 0 <nil>
	// true
}

// meters stands in for a service whose policy "tokens" has a budget of 10 tokens.
type meters struct {
	throttlekitv1.UnimplementedRateLimiterServer

	served int64
}

func (m *meters) Debit(_ context.Context, req *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error) {
	d := &throttlekitv1.Decision{Allowed: m.served < 10, Limit: 10}
	if d.GetAllowed() {
		m.served += req.GetTokens()
	}
	d.Remaining = max(0, 10-m.served)
	return &throttlekitv1.DebitResponse{Decision: d}, nil
}

// A stream is metered as it comes, and stops at the first refusal. What crosses the budget is booked in full.
func ExampleClient_Debit() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := grpc.NewServer()
	throttlekitv1.RegisterRateLimiterServer(server, new(meters))
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	c, err := client.Dial(listener.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	for _, tokens := range []int64{4, 4, 4, 4} {
		d, err := c.Debit(context.Background(), "tokens", "ann", tokens)
		fmt.Println(d.Allowed, d.Remaining, err)
		if err != nil || !d.Allowed {
			break
		}
	}
	// Output:
	// true 6 <nil>
	// true 2 <nil>
	// true 0 <nil>
	// false 0 <nil>
}

// A bound policy goes wherever a limiter goes.
func ExampleClient_Bind() {
	addr, stop := startService()
	defer stop()
	c, err := client.Dial(addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	var limiter throttlekit.Checker = c.Bind("api")
	d, err := limiter.Check(context.Background(), "ann")
	fmt.Println(d.Allowed, err)
	// Output: true <nil>
}

// A service that cannot be reached need not stop its callers.
func ExampleWithUnavailable() {
	c, err := client.Dial("127.0.0.1:1", // where nobody listens
		client.WithUnavailable(client.FailOpen),
		client.WithDegraded(func(err error) { fmt.Println("degraded:", errors.Is(err, client.ErrUnavailable)) }))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	d, err := c.Check(context.Background(), "api", "ann")
	fmt.Println(d.Allowed, err, c.Degraded())
	// Output:
	// degraded: true
	// true <nil> 1
}

// lends stands in for a service whose policy "api" lends what is asked for, for a minute.
type lends struct {
	throttlekitv1.UnimplementedFleetServer
}

func (lends) Reserve(_ context.Context, req *throttlekitv1.ReserveRequest) (*throttlekitv1.ReserveResponse, error) {
	return &throttlekitv1.ReserveResponse{Lease: &throttlekitv1.Lease{
		Capacity: req.GetWants(), SafeCapacity: req.GetWants(), Limit: 5000, RefreshIntervalMs: 60_000,
	}}, nil
}

// A leased limiter asks once for many checks.
func ExampleFleet_Leased() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := grpc.NewServer()
	throttlekitv1.RegisterFleetServer(server, lends{})
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	c, err := client.Dial(listener.Addr().String(), client.WithFleetSecret("s3cret"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	limiter, err := c.Fleet().Leased("api", "", 1000)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limiter.Close()

	for range 3 {
		d, err := limiter.Check(context.Background(), "ann")
		fmt.Println(d.Allowed, d.Limit, d.Remaining, err)
	}
	// Output:
	// true 5000 999 <nil>
	// true 5000 998 <nil>
	// true 5000 997 <nil>
}
