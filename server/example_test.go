package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// A whole server in a program: policies from a file, both doors, a client of each, and a shutdown that answers everyone.
func Example() {
	file, err := policy.Parse("policies.yaml", []byte(`
limiters:
  api: { strategy: fixedWindow, limit: 2, period: 1d }
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	built, err := file.Build(policy.Env{})
	if err != nil {
		fmt.Println(err)
		return
	}
	svc, err := service.New(service.Config{Policies: built})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer svc.Close()

	s, err := server.New(svc, server.Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0"}) // port 0: any free one
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, shutDown := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- s.Serve(ctx) }()

	askOverGRPC(ctx, s.GRPCAddr().String())
	askOverHTTP("http://" + s.HTTPAddr().String())

	shutDown()
	fmt.Println("served:", <-served)
	// Output:
	// gRPC: true 1 <nil>
	// HTTP: 200 allowed
	// served: <nil>
}

func askOverGRPC(ctx context.Context, addr string) {
	c, err := client.Dial(addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	d, err := c.Check(ctx, "api", "ann")
	fmt.Println("gRPC:", d.Allowed, d.Remaining, err)
}

func askOverHTTP(base string) {
	res, err := http.Post(base+"/throttlekit.v1.RateLimiter/Check", "application/json",
		strings.NewReader(`{"policy":"api","key":"ann"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && strings.Contains(string(body), `"allowed":true`) {
		fmt.Println("HTTP:", res.StatusCode, "allowed")
	}
	http.DefaultClient.CloseIdleConnections()
}
