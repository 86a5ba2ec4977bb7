package throttlekitv1connect_test

import (
	"context"
	"fmt"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/api/throttlekit/v1/throttlekitv1connect"
)

// two allows two units to each caller of Check, without keeping a record; whatever it does not define is UNIMPLEMENTED.
type two struct {
	throttlekitv1connect.UnimplementedRateLimiterHandler
}

func (two) Check(_ context.Context, req *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
	cost := max(req.GetCost(), 1) // 0 means 1
	return &throttlekitv1.CheckResponse{Decision: &throttlekitv1.Decision{
		Allowed:   cost <= 2,
		Limit:     2,
		Remaining: max(2-cost, 0),
	}}, nil
}

// A handler and a client in one process, without a network between them.
func Example() {
	server := connect.NewServer()
	throttlekitv1connect.RegisterRateLimiterHandler(server, two{})

	client := throttlekitv1connect.NewRateLimiterClient(connect.NewClient(connectinprocess.New(server)))
	for _, cost := range []int64{0, 3} {
		res, err := client.Check(context.Background(), &throttlekitv1.CheckRequest{Policy: "api", Key: "ann", Cost: cost})
		fmt.Println(res.GetDecision().GetAllowed(), res.GetDecision().GetRemaining(), err)
	}
	_, err := client.Peek(context.Background(), &throttlekitv1.PeekRequest{Policy: "api", Key: "ann"})
	fmt.Println(connect.CodeOf(err))

	// Output:
	// true 1 <nil>
	// false 0 <nil>
	// unimplemented
}
