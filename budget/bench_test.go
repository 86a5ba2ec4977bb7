package budget_test

import (
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
)

func perMinute(limit float64) *budget.Budget {
	return &budget.Budget{Windows: []budget.Window{{Limit: limit, Width: time.Minute}}}
}

// BenchmarkCheck is what the others are measured by: one GCRA check, on one key and in memory.
func BenchmarkCheck(b *testing.B) {
	l, err := throttlekit.NewLimiter(throttlekit.GCRA{Limit: 1e12, Period: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	b.ReportAllocs()
	for b.Loop() {
		if d, err := l.Check(b.Context(), "tenant-1"); err != nil || !d.Allowed {
			b.Fatal(d, err)
		}
	}
}

func BenchmarkDebit(b *testing.B) {
	m, err := budget.NewMeter(budget.Config{Budget: perMinute(1 << 52)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if d, err := m.Debit(b.Context(), "tenant-1", 1); err != nil || !d.Allowed {
			b.Fatal(d, err)
		}
	}
}

func BenchmarkAdmitAndSettle(b *testing.B) {
	l, err := budget.NewLedger(budget.LedgerConfig{Config: budget.Config{Budget: perMinute(1 << 52)}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		lease, err := l.Admit(b.Context(), budget.Request{Key: "tenant-1", Model: "m", Input: 10, MaxOutput: 100})
		if err != nil || !lease.Verdict().Allowed {
			b.Fatal(lease, err)
		}
		if _, err := lease.Settle(b.Context(), budget.Usage{Input: 10}); err != nil {
			b.Fatal(err)
		}
	}
}
