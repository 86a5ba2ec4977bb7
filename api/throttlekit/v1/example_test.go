package throttlekitv1_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// empty is a limiter with nothing left; whatever it does not define is UNIMPLEMENTED.
type empty struct {
	throttlekitv1.UnimplementedRateLimiterServer
}

func (empty) Check(context.Context, *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
	return &throttlekitv1.CheckResponse{Decision: &throttlekitv1.Decision{Limit: 5, RetryAfterMs: 250}}, nil
}

// A denial is an answer; only a call that could not be decided is an error.
func Example() {
	pipe := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	throttlekitv1.RegisterRateLimiterServer(server, empty{})
	go func() { _ = server.Serve(pipe) }()
	defer server.Stop()

	conn, err := grpc.NewClient("passthrough:///pipe",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	client := throttlekitv1.NewRateLimiterClient(conn)
	res, err := client.Check(context.Background(), &throttlekitv1.CheckRequest{Policy: "api", Key: "ann"})
	fmt.Println(res.GetDecision().GetAllowed(), res.GetDecision().GetRetryAfterMs(), err)

	_, err = client.Debit(context.Background(), &throttlekitv1.DebitRequest{Policy: "api", Key: "ann", Tokens: 9})
	fmt.Println(status.Code(err) == codes.Unimplemented)

	// Output:
	// false 250 <nil>
	// true
}
