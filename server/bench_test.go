package server

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/service"
)

type limiterService struct{ l *throttlekit.Limiter }

func (s limiterService) Check(ctx context.Context, policy, key string, cost float64) (throttlekit.Decision, error) {
	return s.l.CheckN(ctx, key, cost)
}
func (s limiterService) CheckMany(ctx context.Context, policy string, keys []string, cost float64) ([]throttlekit.Decision, error) {
	return s.l.CheckMany(ctx, keys, cost)
}
func (s limiterService) Peek(ctx context.Context, policy, key string) (throttlekit.Decision, error) {
	return s.l.Peek(ctx, key)
}
func (s limiterService) Forecast(ctx context.Context, policy, key string, cost float64) (throttlekit.Forecast, error) {
	return s.l.Forecast(ctx, key, cost)
}
func (s limiterService) Policies() []service.Info { return []service.Info{{Name: "api"}} }

type echo struct {
	throttlekitv1.UnimplementedRateLimiterServer
}

func (echo) Check(context.Context, *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
	return &throttlekitv1.CheckResponse{Decision: &throttlekitv1.Decision{Allowed: true, Limit: 100, Remaining: 99, ResetAt: 1795000000000}}, nil
}

func load(b *testing.B, addr string) {
	b.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	client := throttlekitv1.NewRateLimiterClient(conn)
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		req := &throttlekitv1.CheckRequest{Policy: "api", Key: "user:1234"}
		for pb.Next() {
			if _, err := client.Check(context.Background(), req); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkEcho(b *testing.B) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	s := grpc.NewServer()
	throttlekitv1.RegisterRateLimiterServer(s, echo{})
	go s.Serve(l)
	defer s.Stop()
	load(b, l.Addr().String())
}

func BenchmarkServer(b *testing.B) {
	l, err := throttlekit.NewLimiter(throttlekit.GCRA{Limit: 100, Period: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(limiterService{l}, Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: Off})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	load(b, s.GRPCAddr().String())
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

func BenchmarkVariants(b *testing.B) {
	for i := range 5 {
		for _, v := range []struct{n string; o []grpc.ServerOption}{
			{"echo", nil},
			{"plain", nil},
			{"workers2", []grpc.ServerOption{grpc.NumStreamWorkers(2)}},
			{"workers8", []grpc.ServerOption{grpc.NumStreamWorkers(8)}},
			{"windows", []grpc.ServerOption{grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(1<<20)}},
			{"shared", []grpc.ServerOption{grpc.SharedWriteBuffer(true)}},
			{"all", []grpc.ServerOption{grpc.NumStreamWorkers(4),grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(1<<20), grpc.SharedWriteBuffer(true)}},
		} {
			b.Run(v.n, func(b *testing.B) {
				_ = i
				if v.n == "echo" { BenchmarkEcho(b); return }
				variant = v.o
				BenchmarkServer(b)
			})
		}
	}
}
