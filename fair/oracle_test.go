package fair

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// oracle is weighted-fair escrow written from the text of the specification, slow and
// obvious: it counts everything anew, in the order of arrival, at every check.
type oracle struct {
	limit, width float64
	most         int
	start        float64
	tenants      []*seat
	evicted      float64
}

func (o *oracle) check(now int64, tenant string, weight, cost float64) throttlekit.Decision {
	if float64(now) >= o.start+o.width {
		o.start, o.tenants, o.evicted = math.Floor(float64(now)/o.width)*o.width, nil, 0
	}
	i := slices.IndexFunc(o.tenants, func(s *seat) bool { return s.tenant == tenant })
	if i < 0 {
		if len(o.tenants) == o.most {
			o.evicted += o.tenants[0].used
			o.tenants = o.tenants[1:]
		}
		i = len(o.tenants)
		o.tenants = append(o.tenants, &seat{tenant: tenant})
	}
	me := o.tenants[i]
	me.weight = weight
	sumW, sumU := 0.0, o.evicted
	for _, s := range o.tenants {
		sumW += s.weight
		sumU += s.used
	}
	share := func(s *seat) float64 { return math.Floor(float64(s.weight*o.limit) / sumW) }
	reset := math.Ceil(o.start + o.width)
	answer := func(allowed bool, limit, remaining float64) throttlekit.Decision {
		d := throttlekit.Decision{Allowed: allowed, Limit: int64(limit), Remaining: int64(max(0, remaining)), ResetAtMillis: int64(reset)}
		if !allowed {
			d.RetryAfterMillis = max(1, int64(math.Ceil(reset-float64(now))))
		}
		return d
	}
	rest := o.limit - sumU
	if cost > rest {
		return answer(false, max(share(me), me.used), share(me)-me.used)
	}
	if me.used+cost <= share(me) {
		me.used += cost
		return answer(true, share(me), share(me)-me.used)
	}
	reserve := 0.0
	for _, s := range o.tenants {
		if s != me {
			reserve += max(0, share(s)-s.used)
		}
	}
	available := max(0, rest-reserve)
	ceiling := share(me) + min(me.used+cost-share(me), cost, available, rest)
	allowed := me.used+cost <= ceiling
	if allowed {
		me.used += cost
	}
	return answer(allowed, ceiling, ceiling-me.used)
}

func (o *oracle) reset(tenant string) {
	o.tenants = slices.DeleteFunc(o.tenants, func(s *seat) bool {
		if s.tenant == tenant {
			o.evicted += s.used
		}
		return s.tenant == tenant
	})
}

// TestEscrowEqualsOracle runs random timelines through escrow and oracle: whole and
// fractional weights and costs, changing weights, evictions, resets, clocks that step back.
func TestEscrowEqualsOracle(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(4, seed))
		width := time.Duration(1+r.IntN(5000)) * 500 * time.Microsecond
		fractions := r.IntN(3) // 0: none; 1: from the middle on; 2: always
		o := &oracle{limit: float64(1 + r.IntN(300)), width: toMillis(width), most: 1 + r.IntN(12), start: math.Inf(-1)}
		clock := throttlekit.NewManualClock(base)
		weight := 1.0
		e, err := NewEscrow(EscrowConfig{
			Limit: o.limit + 0.5, Window: width, MaxTenants: o.most, Clock: clock, WeightOf: func(string) float64 { return weight },
		})
		if err != nil {
			t.Fatal(err)
		}
		history := fmt.Sprintf("seed %d, limit %v, width %v, most %d:", seed, o.limit, width, o.most)
		for i := range 300 {
			now := clock.NowMillis() + r.Int64N(width.Milliseconds()/20+2)
			if r.IntN(40) == 0 {
				now -= r.Int64N(3 * width.Milliseconds())
			}
			clock.Set(now)
			tenant, cost := strconv.Itoa(r.IntN(8)), float64(1+r.IntN(5))
			weight = float64(1 + r.IntN(2)*r.IntN(7))
			if fractions == 2 || fractions == 1 && i > 150 {
				cost += r.Float64()
				weight = []float64{weight, weight / 3, 0.1, 0.7}[r.IntN(4)]
			}
			if r.IntN(50) == 0 {
				e.Reset(tenant)
				o.reset(tenant)
				history += " reset " + tenant
			}
			history += fmt.Sprintf(" (%d, %s, %v, %v)", now, tenant, weight, cost)
			want := o.check(now, tenant, weight, cost)
			got := check(t, e, tenant, cost)
			if got != want {
				t.Fatalf("%s: got %+v, want %+v", history, got, want)
			}
			if got.Allowed != (got.RetryAfterMillis == 0) {
				t.Fatalf("%s: retry %d", history, got.RetryAfterMillis)
			}
		}
		s := e.Stats()
		if len(s.Tenants) != len(o.tenants) || s.WindowStartMillis != int64(o.start) {
			t.Fatalf("%s: got %+v", history, s)
		}
		used := o.evicted
		for i, tenant := range o.tenants {
			used += tenant.used
			if s.Tenants[i] != (Tenant{tenant.tenant, tenant.weight, tenant.used}) {
				t.Fatalf("%s: got %+v in place %d", history, s.Tenants[i], i)
			}
		}
		if s.TotalUsed != used || s.Pool != o.limit-used || used > o.limit {
			t.Fatalf("%s: got %+v, want %v used", history, s, used)
		}
	}
}
