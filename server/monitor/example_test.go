package monitor_test

import (
	"context"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

func Example() {
	hub, err := monitor.New(monitor.Config{Node: "example:50051", Backend: "memory"})
	if err != nil {
		fmt.Println(err)
		return
	}
	file, err := policy.Parse("policies.yaml", []byte("limiters: {api: {strategy: fixedWindow, limit: 2, period: 1h}}"))
	if err != nil {
		fmt.Println(err)
		return
	}
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: throttlekit.NewManualClock(0)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	policies, err := file.Build(policy.Env{Store: store})
	if err != nil {
		fmt.Println(err)
		return
	}
	svc, err := service.New(service.Config{Policies: policies, Taps: []service.Tap{hub}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer svc.Close()
	if err := hub.Attach(svc); err != nil {
		fmt.Println(err)
		return
	}

	denials, err := hub.Watch("api")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer denials.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range 3 {
		if _, err := svc.Check(ctx, "api", "user:1", 1); err != nil {
			fmt.Println(err)
			return
		}
	}
	d := <-denials.Events()
	fmt.Printf("denied: %s by %s, limit %d\n", d.Key, d.Policy, d.Decision.Limit)
	rows := hub.Snapshot(ctx).Policies
	for i := range rows {
		p := &rows[i]
		fmt.Printf("%s: %d allowed, %d denied, most denied: %v\n", p.Name, p.Analytics.Allowed, p.Analytics.Denied, p.Analytics.TopDenied)
	}
	// Output:
	// denied: user:1 by api, limit 2
	// api: 2 allowed, 1 denied, most denied: [{user:1 1}]
}
