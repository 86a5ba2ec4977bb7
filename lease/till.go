package lease

import (
	"math"
	"sync/atomic"

	"github.com/throttlekit/throttlekit-go"
)

// till is a part of what a holder has, from the grant that ends first, that requests take
// from without the lock. As long as it is open, the spender still counts its units.
type till struct {
	left           atomic.Int64 // in whole units; negative once the till is closed
	given, behind  int64        // units at the beginning, and those that stayed with the spender
	until          int64        // when they end
	limit, resetAt int64
}

// closedTill is less than any cost takes off.
const closedTill = math.MinInt64

// take is the fast path of a request that the till covers.
func (h *Holder) take(now int64, cost float64) (d throttlekit.Decision, ok bool) {
	t := h.till.Load()
	if t == nil || now >= t.until || cost != math.Trunc(cost) {
		return d, false
	}
	for {
		left := t.left.Load()
		rest := left - int64(cost)
		if left < 0 || rest < 0 {
			return d, false
		}
		if t.left.CompareAndSwap(left, rest) {
			return throttlekit.Decision{Allowed: true, Limit: t.limit, Remaining: t.behind + rest, ResetAtMillis: t.resetAt}, true
		}
	}
}

// settle closes the till and takes off what was taken from it. It comes first wherever the
// lock has been taken.
func (h *Holder) settle() {
	t := h.till.Load()
	if t == nil {
		return
	}
	h.till.Store(nil)
	if spent := t.given - t.left.Swap(closedTill); spent > 0 {
		h.spender.take(t.until, float64(spent))
		h.lastUse = h.now()
	}
}

// stock opens a till with what can be spent without anything else to be done about it, if
// requests like this one can take from it.
func (h *Holder) stock(cost float64) {
	const worthwhile = 4
	s := &h.spender
	if h.config.Sizer != nil || h.closed || s.count == 0 || cost != math.Trunc(cost) {
		return
	}
	given := s.lots[0].credits
	if h.config.LowWater > 0 && h.flight == nil {
		given = min(given, s.credits-float64(h.config.LowWater)-1)
	}
	if given < worthwhile {
		return
	}
	t := &till{given: floor(given), until: s.lots[0].expiresAt, limit: s.limit, resetAt: h.resetAt}
	t.behind = floor(s.credits) - t.given
	t.left.Store(t.given)
	h.till.Store(t)
}
