package policy_test

import (
	"context"
	"fmt"

	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

func ExampleParse() {
	file, err := policy.Parse("policies.yaml", []byte(`
limiters:
  api:
    strategy: tokenBucket
    capacity: 50
    refillPerSec: 10
  login: { strategy: slidingWindowLog, limit: 5, period: 15m, failMode: closed }
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range file.Policies() {
		fmt.Println(p.Name, p.Strategy, p.Limit)
	}
	// Output:
	// api tokenBucket 50
	// login slidingWindowLog 5
}

func ExampleParse_problems() {
	_, err := policy.Parse("policies.yaml", []byte(`
limiters:
  api:
    strategy: tokenBucket
    capacity: 0
    refilPerSec: 10
`))
	fmt.Println(err)
	// Output:
	// policies.yaml:3:3: limiters.api.refillPerSec: must be given
	// policies.yaml:5:15: limiters.api.capacity: must be a positive finite number, got 0
	// policies.yaml:6:5: limiters.api.refilPerSec: is not a known field; did you mean `refillPerSec`?
}

func ExampleFile_Build() {
	file, err := policy.Starter()
	if err != nil {
		fmt.Println(err)
		return
	}
	policies, err := file.Build(policy.Env{}) // a private in-memory store for each
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
	d, err := s.Check(context.Background(), "login", "alice", 1)
	fmt.Println(d.Allowed, d.Limit, d.Remaining, err)
	// Output: true 5 4 <nil>
}
