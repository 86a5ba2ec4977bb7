package server

import (
	"context"
	"net"
	"runtime"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// callers is how many requests are in flight at a time.
const callers = 64

// BenchmarkCheck compares the gRPC door, with a limiter behind it, with a plain grpc-go server that answers what it has
// ready: same messages, same client, one connection. Both ends run in this process.
func BenchmarkCheck(b *testing.B) {
	b.Run("echo", func(b *testing.B) {
		listener, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		s := grpc.NewServer()
		throttlekitv1.RegisterRateLimiterServer(s, echo{})
		go func() { _ = s.Serve(listener) }()
		defer s.Stop()
		load(b, listener.Addr().String())
	})
	b.Run("server", func(b *testing.B) {
		s, _ := serve(b, policies(b), local())
		load(b, s.GRPCAddr().String())
	})
}

type echo struct {
	throttlekitv1.UnimplementedRateLimiterServer
}

func (echo) Check(context.Context, *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
	return &throttlekitv1.CheckResponse{
		Decision: &throttlekitv1.Decision{Limit: 5, ResetAt: epoch, RetryAfterMs: 3_000_000},
	}, nil
}

func load(b *testing.B, addr string) {
	b.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	client := throttlekitv1.NewRateLimiterClient(conn)
	ctx := context.WithoutCancel(b.Context()) // that of b has a lock that all callers would meet at
	b.SetParallelism((callers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		req := &throttlekitv1.CheckRequest{Policy: "five", Key: "user:1234"}
		for pb.Next() {
			if _, err := client.Check(ctx, req); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
