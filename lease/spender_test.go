package lease_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
)

func spender(t *testing.T, config lease.SpenderConfig) *lease.Spender {
	t.Helper()
	s, err := lease.NewSpender(config)
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

func TestEachGrantEndsAtItsOwnExpiry(t *testing.T) {
	t.Parallel()
	s := spender(t, lease.SpenderConfig{Limit: 100})
	s.Grant(5, 2000)
	s.Grant(7, 1000) // granted later, ends earlier, and is spent first
	s.Grant(1, 2000)
	if d, ok := s.Spend(0, 8); !ok || d.Remaining != 5 {
		t.Fatalf("%+v %v, want 8 of 13 spent", d, ok)
	}
	if got := s.Credits(1000); got != 5 {
		t.Errorf("%v left after the first expiry, want 5", got)
	}
	s.Grant(3, 1500)
	if got := s.Credits(1500); got != 5 {
		t.Errorf("%v left after the second expiry, want 5", got)
	}
	if _, ok := s.Spend(2000, 1); ok {
		t.Error("spent after every grant had expired")
	}
}

// A spender never spends more than what it was granted, nor anything after its expiry. The
// oracle keeps every unit by itself.
func TestSpenderAgainstUnits(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 5))
		s := spender(t, lease.SpenderConfig{Limit: 1000})
		var units []int64 // the expiry of each, ascending
		now := int64(0)
		for range 300 {
			now += random.Int64N(30)
			for len(units) > 0 && units[0] <= now {
				units = units[1:]
			}
			if n := random.IntN(6); random.IntN(4) == 0 {
				// Lots of at most four expiries can live here, so none has to join another.
				expiry := (now/100 + 1 + random.Int64N(3)) * 100
				s.Grant(float64(n), expiry)
				at := 0
				for at < len(units) && units[at] <= expiry {
					at++
				}
				for range n {
					units = append(units[:at], append([]int64{expiry}, units[at:]...)...)
				}
				continue
			}
			cost := 1 + random.IntN(4)
			d, ok := s.Spend(now, float64(cost))
			if want := len(units) >= cost; ok != want {
				t.Fatalf("seed %d at %d: spending %d of %d units: %v", seed, now, cost, len(units), ok)
			}
			if ok {
				units = units[cost:]
				if d.Remaining != int64(len(units)) {
					t.Fatalf("seed %d at %d: %d remain, want %d", seed, now, d.Remaining, len(units))
				}
			}
		}
	}
}

// With more expiries than a spender tells apart, units end early and never late.
func TestManyExpiriesEndEarly(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 6))
		s := spender(t, lease.SpenderConfig{Limit: 1000})
		alive := map[int64]float64{}
		for now := range int64(400) {
			if random.IntN(3) == 0 {
				expiry, units := now+1+random.Int64N(60), float64(random.IntN(5))
				s.Grant(units, expiry)
				alive[expiry] += units
			}
			var most float64
			for expiry, units := range alive {
				if expiry > now {
					most += units
				}
			}
			if held := s.Credits(now); held > most || held < 0 {
				t.Fatalf("seed %d at %d: %v units held, of which at most %v live", seed, now, held, most)
			}
		}
	}
}

func TestRefreshServesTheRequestThatAsked(t *testing.T) {
	t.Parallel()
	s := spender(t, lease.SpenderConfig{Limit: 10})
	asked := 0
	d, err := s.SpendOrRefresh(5000, 1, func(float64) (float64, int64, *throttlekit.Decision, error) {
		asked++
		return 10, 1000, nil, nil // expired by this clock
	})
	want := throttlekit.Decision{Allowed: true, Limit: 10, Remaining: 9, ResetAtMillis: 1000}
	if err != nil || d != want || asked != 1 {
		t.Errorf("%+v, %v after %d grants, want %+v after one", d, err, asked, want)
	}
	if got := s.Credits(5000); got != 0 {
		t.Errorf("the next request finds %v expired units", got)
	}
}

func TestRefreshGathersPartialGrants(t *testing.T) {
	t.Parallel()
	s := spender(t, lease.SpenderConfig{Limit: 10})
	var wants []float64
	grants := []float64{2, 1, 4}
	d, err := s.SpendOrRefresh(0, 5, func(w float64) (float64, int64, *throttlekit.Decision, error) {
		wants = append(wants, w)
		return grants[len(wants)-1], 1000, nil, nil
	})
	if err != nil || !d.Allowed || d.Remaining != 2 || len(wants) != 3 || wants[2] != 5 {
		t.Errorf("%+v, %v after asking for %v", d, err, wants)
	}
}

func TestRefreshPassesAnswersOn(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	denial := throttlekit.Decision{Limit: 10, Remaining: 3, ResetAtMillis: 77, RetryAfterMillis: 7}
	for name, c := range map[string]struct {
		units  float64
		denial *throttlekit.Decision
		err    error
		want   string
	}{
		"denial": {denial: &denial},
		"error":  {err: broken, want: "broken"},
		"zero":   {units: 0, want: "zero-capacity grant"},
		"NaN":    {units: math.NaN(), want: "zero-capacity grant"},
		"Inf":    {units: math.Inf(1), want: "zero-capacity grant"},
		"crumbs": {units: 1e-9, want: "1024 grants did not cover a cost of 5"},
	} {
		s := spender(t, lease.SpenderConfig{Limit: 10})
		d, err := s.SpendOrRefresh(0, 5, func(float64) (float64, int64, *throttlekit.Decision, error) {
			return c.units, 1000, c.denial, c.err
		})
		switch {
		case c.want != "":
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil || d != *c.denial:
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

func TestSpenderRefusesWhatIsNoCost(t *testing.T) {
	t.Parallel()
	for _, cost := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1)} {
		s := spender(t, lease.SpenderConfig{Limit: 10})
		s.Grant(10, 1000)
		if d, ok := s.Spend(0, cost); ok {
			t.Errorf("Spend(%v) = %+v", cost, d)
		}
		_, err := s.SpendOrRefresh(0, cost, func(float64) (float64, int64, *throttlekit.Decision, error) {
			t.Errorf("asked for %v", cost)
			return 0, 0, nil, nil
		})
		if !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("SpendOrRefresh(%v): %v", cost, err)
		}
		if got := s.Credits(0); got != 10 {
			t.Errorf("%v units left", got)
		}
	}
	for _, config := range []lease.SpenderConfig{{}, {Limit: -1}, {Limit: 1, TTLMillis: -1}} {
		if _, err := lease.NewSpender(config); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("NewSpender(%+v): %v", config, err)
		}
	}
}

func BenchmarkSpend(b *testing.B) {
	s, err := lease.NewSpender(lease.SpenderConfig{Limit: 100})
	if err != nil {
		b.Fatal(err)
	}
	s.Grant(math.MaxInt32*1e6, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Spend(500, 1); !ok {
			b.Fatal("short")
		}
	}
}
