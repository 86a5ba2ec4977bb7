package telemetry_test

import (
	"context"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go/server/telemetry"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// What a service decides arrives at a collector.
func Example() {
	collector, stop, err := startCollector() // stands for one that runs elsewhere
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	ctx := context.Background()
	t, err := telemetry.Start(ctx, telemetry.Config{Endpoint: collector.url, Node: "10.0.0.7:50051", Metrics: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	file, err := policy.Parse("policies.yaml", []byte("limiters: { api: { strategy: fixedWindow, limit: 2, period: 1d } }"))
	if err != nil {
		fmt.Println(err)
		return
	}
	policies, err := file.Build(policy.Env{})
	if err != nil {
		fmt.Println(err)
		return
	}
	svc, err := service.New(service.Config{Policies: policies, Taps: []service.Tap{t}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer svc.Close()

	for range 3 {
		if _, err := svc.Check(ctx, "api", "user:1", 1); err != nil {
			fmt.Println(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := t.Shutdown(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println(collector.points("throttlekit.checks"))
	// Output: map[allowed=false policy=api strategy=fixedWindow:1 allowed=true policy=api strategy=fixedWindow:2]
}
