package client

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// BenchmarkCheck compares the client with the generated stub, one caller at a time. The service is a plain grpc-go
// server that answers what it has ready.
func BenchmarkCheck(b *testing.B) {
	answer := &throttlekitv1.CheckResponse{Decision: &throttlekitv1.Decision{Allowed: true, Limit: 100, Remaining: 99, ResetAt: 1_795_000_000_000}}
	addr := serve(b, &fake{check: func(context.Context, *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
		return answer, nil
	}})
	ctx := context.WithoutCancel(b.Context()) // neither a deadline nor a cancellation of its own
	b.Run("stub", func(b *testing.B) {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		stub := throttlekitv1.NewRateLimiterClient(conn)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := stub.Check(ctx, &throttlekitv1.CheckRequest{Policy: "api", Key: "user:1234", Cost: 1}); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, opts := range map[string][]Option{"client": {WithTimeout(DefaultTimeout)}, "client without a timeout": {WithTimeout(0)}} {
		b.Run(name, func(b *testing.B) {
			c := dial(b, addr, opts...)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Check(ctx, "api", "user:1234"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
