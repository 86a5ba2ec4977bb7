package fair

import (
	"errors"
	"math"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// whole truncates x toward zero and saturates at MaxSafe, as the fields of a Decision want it. x is not negative.
func whole(x float64) int64 {
	if x >= throttlekit.MaxSafe {
		return throttlekit.MaxSafe
	}
	return int64(x)
}

// ceil is whole(⌈x⌉) of any x.
func ceil(x float64) int64 {
	up := math.Ceil(x)
	if up <= -throttlekit.MaxSafe {
		return -throttlekit.MaxSafe
	}
	return whole(up)
}

// toMillis is the binary64 number of milliseconds nearest to d, as in the core.
func toMillis(d time.Duration) float64 {
	if d%time.Millisecond == 0 {
		return float64(d / time.Millisecond)
	}
	return float64(d) / float64(time.Millisecond)
}

// windowStart is the start of the window that contains now; windows are aligned to the epoch.
func windowStart(nowMillis, width float64) float64 {
	return float64(math.Floor(nowMillis/width) * width)
}

// checks collects every broken rule of one configuration, so that all are reported at once.
type checks []error

func (c *checks) require(ok bool, field string, value any, rule string) {
	if !ok {
		*c = append(*c, &throttlekit.InvalidError{Field: field, Value: value, Rule: rule})
	}
}

func (c checks) err() error {
	if len(c) == 1 {
		return c[0]
	}
	return errors.Join(c...)
}

const (
	limitRule  = "must be a finite number >= 1 and at most 9007199254740991"
	weightRule = "must be a finite number greater than 0 and at most 9007199254740991"
	widthRule  = "must be a positive duration"
)

// limit requires a limit and returns it without its fraction, which no whole unit would ever use.
func (c *checks) limit(limit float64) float64 {
	c.require(limit >= 1 && limit <= throttlekit.MaxSafe, "limit", limit, limitRule)
	return math.Floor(limit)
}

func (c *checks) window(d time.Duration) { c.require(d > 0, "window", d, widthRule) }

// bound requires the size of a table, which is most if none is given.
func (c *checks) bound(field string, n, most int) int {
	c.require(n >= 0, field, n, "must not be negative")
	if n == 0 {
		return most
	}
	return n
}

func positive(x float64) bool { return x > 0 && x <= throttlekit.MaxSafe }

// validRequest refuses a check that names no tenant, or whose cost or weight is no usable number.
func validRequest(tenant string, cost, weight float64) error {
	switch {
	case tenant == "":
		return &throttlekit.InvalidError{Field: "tenant", Value: tenant, Rule: "must not be empty"}
	case !positive(cost):
		return &throttlekit.InvalidError{Field: "cost", Value: cost, Rule: weightRule}
	case !positive(weight):
		return &throttlekit.InvalidError{Field: "weight", Value: weight, Rule: weightRule}
	}
	return nil
}

// WeightOf tells the weight of a tenant: finite, above 0 and at most [throttlekit.MaxSafe].
// It is asked at every check and must be safe for concurrent use. Whole weights are cheaper:
// see Costs in the text of the package.
type WeightOf func(tenant string) float64

// Weights returns a WeightOf for a table of tenants. Tenants that are not in it weigh 1. The
// error matches [throttlekit.ErrInvalid] if a tenant has no name or no valid weight.
func Weights(table map[string]float64) (WeightOf, error) {
	var c checks
	held := make(map[string]float64, len(table))
	for tenant, weight := range table {
		c.require(tenant != "", "weights", tenant, "must not name an empty tenant")
		c.require(positive(weight), "weights["+tenant+"]", weight, weightRule)
		held[tenant] = weight
	}
	if len(c) > 0 {
		return nil, c.err()
	}
	return func(tenant string) float64 {
		if weight, ok := held[tenant]; ok {
			return weight
		}
		return 1
	}, nil
}

func (f WeightOf) of(tenant string) float64 {
	if f == nil {
		return 1
	}
	return f(tenant)
}
