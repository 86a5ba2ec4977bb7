package service_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

// parts is a tap that takes checks of a policy by their parts.
type parts struct {
	policy  string
	events  *atomic.Int64
	checks  *atomic.Int64
	elapsed *atomic.Int64
	at      *atomic.Int64
}

func (p parts) Decided(service.Event) { p.events.Add(1) }

func (p parts) ForPolicy(info service.Info) service.Tap { p.policy = info.Name; return p }

func (p parts) Checked(_ string, _ float64, _ throttlekit.Decision, atMillis int64, elapsed time.Duration) {
	if p.policy == "" {
		panic("not bound to a policy")
	}
	p.checks.Add(1)
	p.at.Store(atMillis)
	if elapsed > 0 {
		p.elapsed.Add(1)
	}
}

// With a clock, one check of a policy in each of its milliseconds is timed; the tap of a policy takes its checks by parts.
func TestClockSparesNow(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(5)
	var nows atomic.Int64
	tap := parts{events: new(atomic.Int64), checks: new(atomic.Int64), elapsed: new(atomic.Int64), at: new(atomic.Int64)}
	s := newService(t, "limiters: {p: {strategy: gcra, limit: 9, period: 1h}, q: {strategy: gcra, limit: 9, period: 1h}}", nil, service.Config{
		Taps: []service.Tap{tap}, Clock: clock,
		Now: func() time.Time { return time.Unix(nows.Add(1), 0) },
	})
	began := nows.Load()
	for _, now := range []int64{5, 5, 5, 6, 6, 6} {
		clock.Set(now)
		for _, policy := range []string{"p", "q"} {
			if _, err := s.Check(t.Context(), policy, "k", 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	if tap.checks.Load() != 12 || tap.events.Load() != 0 || tap.elapsed.Load() != 4 || nows.Load()-began != 8 || tap.at.Load() != 6 {
		t.Errorf("%d checks, %d events, %d timed, %d readings, at %d", tap.checks.Load(), tap.events.Load(), tap.elapsed.Load(), nows.Load()-began, tap.at.Load())
	}
	if _, err := s.CheckMany(t.Context(), "p", []string{"a", "b"}, 1); err != nil {
		t.Fatal(err)
	}
	if tap.events.Load() != 2 {
		t.Errorf("%d events", tap.events.Load())
	}
}
