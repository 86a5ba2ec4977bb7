package service_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

func ExampleNew() {
	file, err := policy.Parse("policies.yaml", []byte(`
limiters:
  login: { strategy: slidingWindowLog, limit: 2, period: 15m, failMode: closed }
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	policies, err := file.Build(policy.Env{})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := service.New(service.Config{Policies: policies})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	ctx := context.Background()
	for range 3 {
		d, err := s.Check(ctx, "login", "alice", 1)
		fmt.Println(d.Allowed, d.Remaining, err)
	}
	_, err = s.Check(ctx, "logout", "alice", 1)
	fmt.Println(errors.Is(err, throttlekit.ErrPolicyNotFound), err)
	// Output:
	// true 1 <nil>
	// true 0 <nil>
	// false 0 <nil>
	// true throttlekit: policy not found: "logout"; configured: "login"
}

func ExampleService_Bind() {
	file, err := policy.Starter()
	if err != nil {
		fmt.Println(err)
		return
	}
	policies, err := file.Build(policy.Env{})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := service.New(service.Config{Policies: policies})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	var checker throttlekit.Checker // what middleware takes
	checker, err = s.Bind("api")
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := checker.Check(context.Background(), "alice")
	fmt.Println(d.Allowed, d.Remaining, err)
	// Output: true 49 <nil>
}
