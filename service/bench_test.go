package service_test

import (
	"testing"

	"github.com/throttlekit/throttlekit-go/budget"
	"github.com/throttlekit/throttlekit-go/service"
)

// BenchmarkCheck says what the service adds to a limiter, without and with a tap.
func BenchmarkCheck(b *testing.B) {
	for name, taps := range map[string][]service.Tap{"bare": nil, "tapped": {counter{}}} {
		b.Run(name, func(b *testing.B) {
			s := newService(b, "limiters: {p: {strategy: gcra, limit: 1e9, period: 1h}}", nil, service.Config{Taps: taps})
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Check(ctx, "p", "user:12345", 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDebit says the same of a meter.
func BenchmarkDebit(b *testing.B) {
	s, err := service.New(service.Config{Policies: []service.Policy{newMeter(b, nil, budget.MaxTokens)}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Debit(ctx, "tokens", "user:12345", 1); err != nil {
			b.Fatal(err)
		}
	}
}
