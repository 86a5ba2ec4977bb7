package top

import (
	"math"
	"testing"

	"github.com/throttlekit/throttlekit-go/server/monitor"
)

// at is a snapshot of one policy.
func at(ms, window, allowed, denied int64) *monitor.Snapshot {
	return &monitor.Snapshot{
		Meta: monitor.Meta{GeneratedAt: ms, WindowMs: 60_000},
		Policies: []monitor.Policy{{Name: "p", Analytics: monitor.Analytics{
			WindowStartedAt: window, WindowMs: 60_000, Allowed: allowed, Denied: denied, Units: float64(10 * allowed),
		}}},
	}
}

// Rates are differences. Where there is nothing to subtract from, they are of the time since the window began.
func TestRates(t *testing.T) {
	t.Parallel()
	var h History
	for _, step := range []struct {
		name            string
		s               *monitor.Snapshot
		allowed, denied float64 // new per second
	}{
		{"the first one", at(70_000, 60_000, 1_000, 50), 100, 5},
		{"a second later", at(71_000, 60_000, 1_100, 55), 100, 5},
		{"the same again", at(71_000, 60_000, 1_100, 55), 100, 5},
		{"another second", at(72_000, 60_000, 1_200, 60), 100, 5},
		{"half a second into the next window", at(120_500, 120_000, 50, 2), 100, 4},
		{"after ten windows", at(722_000, 720_000, 200, 10), 100, 5},
		{"a server that has started anew", at(723_000, 720_000, 30, 0), 10, 0},
		{"another one, with more denials", at(724_000, 720_000, 12, 40), 3, 10},
		{"and one with fewer", at(725_000, 720_000, 25, 5), 5, 1},
		{"a clock that was put back by a moment", at(724_500, 720_000, 45, 9), 10, 2},
		{"a clock that was put back", at(602_000, 600_000, 20, 2), 10, 1},
	} {
		before := h.policies["p"]
		h.Add(step.s)
		now := h.policies["p"]
		// A rate moves toward the new value and never beyond.
		between := func(what string, from, to, got float64) {
			t.Helper()
			if got < min(from, to)-1e-9 || got > max(from, to)+1e-9 {
				t.Errorf("%s: %s is %v, from %v to %v", step.name, what, got, from, to)
			}
		}
		if len(h.denied) == 1 {
			before = past{allowedRate: step.allowed, deniedRate: step.denied, unitsRate: 10 * step.allowed}
		}
		between("allowed", before.allowedRate, step.allowed, now.allowedRate)
		between("denied", before.deniedRate, step.denied, now.deniedRate)
		between("units", before.unitsRate, 10*step.allowed, now.unitsRate)
		if got := h.denied[len(h.denied)-1]; math.Abs(got-step.denied) > 1e-9 {
			t.Errorf("%s: %v denied per second, want %v", step.name, got, step.denied)
		}
	}
	if len(h.denied) != 10 {
		t.Errorf("%d samples, want 10: the same snapshot twice is one", len(h.denied))
	}
}

func TestRatesSettle(t *testing.T) {
	t.Parallel()
	var h History
	h.Add(at(60_000, 60_000, 0, 0))
	for i := range int64(10) {
		h.Add(at(61_000+1000*i, 60_000, 100*(i+1), 0))
	}
	if allowed, denied := h.rates(); math.Abs(allowed-100) > 2 || denied != 0 {
		t.Errorf("got %v and %v per second, want 100 and 0", allowed, denied)
	}
	for i := range int64(20) {
		h.Add(at(71_000+1000*i, 60_000, 1000, 0))
	}
	if allowed, _ := h.rates(); perSecond(allowed) != "0/s" {
		t.Errorf("got %v per second after a rest", allowed)
	}
}

// What is kept is bounded, and policies that are gone are forgotten.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	var h History
	for i := range int64(1000) {
		s := at(60_000+i, 60_000, i, i)
		s.Policies[0].Name = string(rune('a' + i%26))
		s.Guards = []monitor.Guard{{Name: "g", InFlight: int(i)}, {Name: s.Policies[0].Name}}
		h.Add(s)
	}
	if len(h.denied) != historySize || len(h.policies) != 1 || len(h.guards) != 2 {
		t.Errorf("%d samples of %d policies and %d guards", len(h.denied), len(h.policies), len(h.guards))
	}
	if past := h.guards["g"]; len(past) != guardHistory || past[guardHistory-1] != 999 {
		t.Errorf("of a guard: %v", past)
	}
}

func TestSpark(t *testing.T) {
	t.Parallel()
	g := unicodeGlyphs
	for _, test := range []struct {
		values []float64
		width  int
		want   string
	}{
		{nil, 3, "▁▁▁"}, {[]float64{0, 0}, 2, "▁▁"}, {[]float64{0, 1, 1000}, 4, "▁▁▂█"}, {[]float64{9, 1, 2, 4}, 3, "▃▅█"}, {[]float64{1}, 0, ""},
	} {
		if got := g.spark(test.values, test.width); got != test.want {
			t.Errorf("%v: got %s, want %s", test.values, got, test.want)
		}
	}
}
