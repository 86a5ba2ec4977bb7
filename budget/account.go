package budget

import (
	"math"
	"slices"

	"github.com/throttlekit/throttlekit-go"
)

// period is a window of an account: when it began, in epoch milliseconds, and what was charged in it.
type period struct{ start, served float64 }

// reservation is what a request under way is expected to charge yet, and what it has charged.
type reservation struct {
	id        string
	number    int64 // its name instead, in a process
	remainder float64
	expires   float64  // in epoch milliseconds
	total     float64  // charged since its admission
	charged   []period // in each window; it counts if that is still the one of this start
}

// account is the state of one key at one level: what its windows have served and the reservations
// that are live. It is the rule of this package; steps on records and the accounts of a process
// both come here. It has no clock and no lock.
type account struct {
	periods []period
	closes  []float64 // when the periods end
	live    []reservation
	since   float64 // nothing is placed before
	// placed and ends are periods and closes as they stand at the instant of a step. A step that
	// changes nothing leaves it at that, so that no clock which steps back finds a window gone.
	placed []period
	ends   []float64
}

func newAccount(windows int) account {
	periods, ends := make([]period, 2*windows), make([]float64, 2*windows)
	return account{
		periods: periods[:windows:windows], placed: periods[windows:], closes: ends[:windows:windows], ends: ends[windows:],
	}
}

type op int

const (
	opPeek    op = iota
	opDebit      // charge cost if every window has anything left
	opFit        // charge cost if every window has that much left; the answer says for how long it lasts
	opRefund     // give cost back, if the window that ends first is the one that ends at amount
	opAdmit      // charge cost, and reserve amount beside it, if both fit beside what is reserved
	opSettle     // charge or give back what is missing from amount, and end the reservation
	opRenew      // let the reservation last
	opInspect    // Limit is how many reservations there are, Remaining what they reserve
)

// step is one operation on one account.
type step struct {
	op     op
	frames []frame
	id     string
	number int64 // of a reservation, in a process
	now    int64 // when it was made, in a process
	// cost is how many tokens it is about; where it is about none, 1.
	cost float64
	// amount is what to reserve, what was used in all or -1 if that is as metered, or a reset.
	amount float64
	// extra is how many reservations there may be, or what the caller knows to be metered if a
	// reservation that is gone is to be charged for, or -1.
	extra float64
	lasts float64 // of a reservation, in milliseconds
	// resets are the amounts of a refund at each level, which differ.
	resets []int64
}

// at is the step at a level.
func (s step) at(level int) step {
	if s.resets != nil {
		s.amount = float64(s.resets[level])
	}
	return s
}

// looks reports whether the step changes nothing.
func (s *step) looks() bool { return s.op == opPeek || s.op == opInspect }

// outside is the answer of a frame that does not reach the instant at which it is needed.
func outside(at float64) throttlekit.Decision {
	return throttlekit.Decision{Limit: -1, ResetAtMillis: ceil(at), RetryAfterMillis: 1}
}

func isOutside(d throttlekit.Decision) bool { return d.Limit == -1 }

// place says how the account stands at an instant: windows that have ended start anew. An instant before the
// latest window that the account has reached counts as that window's start. If the frames do not
// reach the instant, known is false, and at tells it.
func (a *account) place(frames []frame, now float64) (at float64, known bool) {
	at = max(now, a.since)
	for i := range a.periods {
		at = max(at, a.periods[i].start)
	}
	for i := range frames {
		if a.placed[i], a.ends[i], known = frames[i].place(a.periods[i], at); !known {
			break
		}
	}
	return at, known
}

// standing are the reservations that have not expired: how many, what they are expected to charge
// yet, and when the first expires.
func (a *account) standing(now float64) (count int, outstanding, soonest float64) {
	soonest = math.Inf(1)
	for i := range a.live {
		if r := &a.live[i]; r.expires > now {
			count, outstanding, soonest = count+1, outstanding+r.remainder, min(soonest, r.expires)
		}
	}
	return count, outstanding, soonest
}

// sweep drops the reservations that have expired.
func (a *account) sweep(now float64) {
	for _, r := range a.live {
		if r.expires <= now {
			a.live = slices.DeleteFunc(a.live, func(r reservation) bool { return r.expires <= now })
			return
		}
	}
}

// find is the live reservation that a step is of, which was last seen at hint.
func (a *account) find(s *step, hint int, now float64) int {
	if s.id == "" && s.number == 0 || s.op == opAdmit {
		return -1
	}
	if hint < 0 || hint >= len(a.live) || !a.live[hint].of(s) {
		hint = -1
		for i := range a.live {
			if a.live[i].of(s) {
				hint = i
				break
			}
		}
	}
	if hint >= 0 && a.live[hint].expires <= now {
		return -1
	}
	return hint
}

func (r *reservation) of(s *step) bool { return r.number == s.number && r.id == s.id }

// decide says what a step would come to, at an instant at which the account stands. It changes nothing.
func (a *account) decide(s *step, now float64, at int, d *throttlekit.Decision) {
	*d = throttlekit.Decision{}
	outstanding, soonest := 0.0, 0.0
	switch s.op {
	case opRefund:
		a.judgeRefund(s, d)
		return
	case opSettle:
		a.judgeSettle(s, at, d)
		return
	case opRenew:
		if d.Allowed = at >= 0; !d.Allowed {
			d.RetryAfterMillis = 1
		}
		return
	case opInspect:
		count, outstanding, _ := a.standing(now)
		d.Allowed, d.Limit, d.Remaining = true, int64(count), ceil(outstanding)
		return
	case opAdmit:
		var count int
		if count, outstanding, soonest = a.standing(now); count >= int(s.extra) {
			d.ResetAtMillis, d.RetryAfterMillis = ceil(soonest), max(1, ceil(soonest-now))
			return
		}
	default:
	}
	a.window(s, 0, now, outstanding, soonest, d)
	for i := 1; i < len(s.frames); i++ {
		var one throttlekit.Decision
		if a.window(s, i, now, outstanding, soonest, &one); binds(&one, d) {
			*d = one
		}
	}
}

// resize makes room for a number of windows in what a reservation has charged, as a copy.
func (r *reservation) resize(windows int) {
	charged := make([]period, windows)
	copy(charged, r.charged)
	r.charged = charged
}

// binds orders decisions: denials before allowances, the longest wait first among denials, the
// least remaining among allowances.
func binds(a, b *throttlekit.Decision) bool {
	switch {
	case a.Allowed != b.Allowed:
		return !a.Allowed
	case a.Allowed:
		return a.Remaining < b.Remaining
	default:
		return a.RetryAfterMillis > b.RetryAfterMillis
	}
}

// window is the decision of one window on a charge.
func (a *account) window(s *step, i int, now, outstanding, soonest float64, d *throttlekit.Decision) {
	limit, served := s.frames[i].limit, a.placed[i].served
	d.Limit, d.ResetAtMillis = int64(limit), ceil(a.ends[i])
	until := max(1, d.ResetAtMillis-int64(now))
	left := limit - served - outstanding
	switch s.op {
	case opFit:
		d.Allowed = s.cost <= left
	case opAdmit:
		// An expectation beyond the whole budget counts as the whole budget, or nobody would ever fit.
		whole := s.cost + min(s.amount, max(0, limit-s.cost))
		d.Allowed = whole <= left
		if !d.Allowed && whole <= limit-served { // it waits for others, who settle or expire
			until = max(1, min(until, ceil(soonest-now)))
		}
	default:
		d.Allowed = left >= 1
	}
	if !d.Allowed {
		d.Remaining, d.RetryAfterMillis = floor(left), until
		return
	}
	if s.op != opPeek {
		left -= s.cost
	}
	d.Remaining = floor(left)
	if s.op == opFit { // it is a loan: until when, and for how long
		d.ResetAtMillis = ceil(slices.Min(a.ends))
		d.RetryAfterMillis = max(1, d.ResetAtMillis-int64(now))
	}
}

func (a *account) judgeRefund(s *step, d *throttlekit.Decision) {
	d.Limit, d.ResetAtMillis = int64(s.frames[0].limit), ceil(slices.Min(a.ends))
	d.Allowed = d.ResetAtMillis == int64(s.amount) && a.placed[0].served > 0
	if !d.Allowed {
		d.RetryAfterMillis = 1
	}
}

// judgeSettle reports in Remaining how much had been metered.
func (a *account) judgeSettle(s *step, at int, d *throttlekit.Decision) {
	d.Limit, d.ResetAtMillis = int64(s.frames[0].limit), ceil(a.ends[0])
	switch {
	case at >= 0:
		d.Allowed, d.Remaining = true, ceil(a.live[at].total)
	case s.extra >= 0 && s.amount > s.extra:
		d.Allowed, d.Remaining = true, ceil(s.extra)
	default:
		d.RetryAfterMillis = 1
	}
}

// commit makes a step that was allowed.
func (a *account) commit(s *step, now float64, at int) {
	if s.looks() {
		return
	}
	copy(a.periods, a.placed)
	copy(a.closes, a.ends)
	switch s.op {
	case opDebit, opFit:
		a.charge(s.cost, at)
		if at >= 0 {
			r := &a.live[at]
			r.remainder, r.expires = max(0, r.remainder-s.cost), max(r.expires, now+s.lasts)
		}
	case opRefund:
		for i := range a.periods {
			a.periods[i].served = max(0, a.periods[i].served-s.cost)
		}
	case opAdmit:
		a.sweep(now)
		a.live = append(a.live, reservation{id: s.id, number: s.number, remainder: s.amount, expires: now + s.lasts, charged: a.spare()})
		a.charge(s.cost, len(a.live)-1)
	case opSettle:
		a.settle(s, at)
	case opRenew:
		a.live[at].expires = max(a.live[at].expires, now+s.lasts)
	default:
	}
}

// spare is room for what a new reservation charges: what one that has ended left, or new.
func (a *account) spare() []period {
	if n := len(a.live); n < cap(a.live) {
		if left := a.live[:n+1][n].charged; len(left) == len(a.periods) {
			clear(left)
			return left
		}
	}
	return make([]period, len(a.periods))
}

// charge counts tokens in every window, and for the reservation at a place if there is one.
func (a *account) charge(tokens float64, at int) {
	for i := range a.periods {
		a.periods[i].served = sum(a.periods[i].served, tokens)
	}
	if at < 0 {
		return
	}
	r := &a.live[at]
	r.total = sum(r.total, tokens)
	for i := range r.charged {
		c := &r.charged[i]
		if c.start != a.periods[i].start {
			*c = period{start: a.periods[i].start}
		}
		c.served = sum(c.served, tokens)
	}
}

// sum saturates where binary64 stops to count.
func sum(a, b float64) float64 { return min(a+b, throttlekit.MaxSafe) }

// settle charges what was used beyond what was metered, also past the limit, or gives back what was
// not used: to each window what charges in other windows cannot explain.
func (a *account) settle(s *step, at int) {
	if at < 0 {
		a.charge(s.amount-s.extra, -1)
		return
	}
	r := &a.live[at]
	switch excess := s.amount - r.total; {
	case s.amount < 0:
	case excess > 0:
		a.charge(excess, -1)
	default:
		for i, c := range r.charged {
			if c.start == a.periods[i].start {
				elsewhere := r.total - c.served // what is too much may have been charged there
				a.periods[i].served = max(0, a.periods[i].served-max(0, -excess-elsewhere))
			}
		}
	}
	last := len(a.live) - 1
	if room := r.charged; at < last {
		*r = a.live[last]
		a.live[last] = reservation{charged: room}
	}
	a.live = a.live[:last]
}

// expires is when the account will equal a fresh one.
func (a *account) expires() float64 {
	latest := slices.Max(a.closes)
	for i := range a.live {
		latest = max(latest, a.live[i].expires)
	}
	return latest
}

// floor is ⌊x⌋, not below 0 and saturated.
func floor(x float64) int64 {
	if x < throttlekit.MaxSafe {
		return max(0, int64(x))
	}
	return throttlekit.MaxSafe
}

func ceil(x float64) int64 {
	if x < throttlekit.MaxSafe {
		n := int64(x)
		if float64(n) < x {
			n++
		}
		return n
	}
	return throttlekit.MaxSafe
}
