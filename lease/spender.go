package lease

import (
	"fmt"
	"math"

	"github.com/throttlekit/throttlekit-go"
)

// maxLots is how many grants of different expiry a Spender tells apart. A holder that
// refreshes when it runs low has two.
const maxLots = 4

// Spender spends what it was granted, and knows when a grant is over. It is pure: time
// comes in as an argument, and what it says follows from what it was told. It is not safe
// for concurrent use; copies are independent.
//
// Times are milliseconds of any one clock that grants and spends share.
type Spender struct {
	limit     int64
	ttl       int64
	carryover bool

	credits   float64 // in all lots
	expiresAt int64   // of the latest grant
	granted   bool
	count     int
	lots      [maxLots]lot // ascending by expiry
}

type lot struct {
	credits   float64
	expiresAt int64
}

// SpenderConfig says what a [Spender] reports and whether its credits expire.
type SpenderConfig struct {
	// Limit is what decisions report as their limit; positive.
	Limit int64
	// TTLMillis is how far ahead decisions report their reset before the first grant; not negative.
	TTLMillis int64
	// Carryover lets credits outlive the expiry of their grant. Off, the default, credits
	// that have expired are discarded, and the issuer's limit holds in each of its windows.
	Carryover bool
}

// NewSpender returns a spender without credits. The error matches [throttlekit.ErrInvalid].
func NewSpender(config SpenderConfig) (Spender, error) {
	if config.Limit <= 0 {
		return Spender{}, &throttlekit.InvalidError{Field: "limit", Value: config.Limit, Rule: "must be a positive integer"}
	}
	if config.TTLMillis < 0 {
		return Spender{}, &throttlekit.InvalidError{Field: "ttlMillis", Value: config.TTLMillis, Rule: "must not be negative"}
	}
	return Spender{limit: config.Limit, ttl: config.TTLMillis, carryover: config.Carryover}, nil
}

// Credits is how many units are held at a time, less what has expired by then.
func (s *Spender) Credits(nowMillis int64) float64 {
	s.discard(nowMillis)
	return s.credits
}

// Grant adds units that may be spent before expiresAtMillis. Units that are not positive
// and finite add nothing.
func (s *Spender) Grant(units float64, expiresAtMillis int64) {
	s.expiresAt, s.granted = expiresAtMillis, true
	if !(units > 0) || math.IsInf(units, 1) {
		return
	}
	s.credits += units
	at := s.count
	for at > 0 && s.lots[at-1].expiresAt > expiresAtMillis {
		at--
	}
	switch {
	case s.carryover && s.count > 0:
		s.lots[0].credits += units
	case at > 0 && s.lots[at-1].expiresAt == expiresAtMillis:
		s.lots[at-1].credits += units
	case s.count < maxLots:
		copy(s.lots[at+1:s.count+1], s.lots[at:s.count])
		s.lots[at] = lot{units, expiresAtMillis}
		s.count++
	case at > 0: // joins the grant that expires before it, so that it can only end early
		s.lots[at-1].credits += units
	default:
		s.lots[0] = lot{s.lots[0].credits + units, expiresAtMillis}
	}
}

// discard drops what has expired.
func (s *Spender) discard(nowMillis int64) {
	if s.carryover {
		return
	}
	for s.count > 0 && s.lots[0].expiresAt <= nowMillis {
		s.drop()
	}
}

// drop forgets the first lot.
func (s *Spender) drop() {
	s.credits -= s.lots[0].credits
	s.shift()
	if s.count == 0 {
		s.credits = 0
	}
}

// shift moves the lots that follow the first one forward.
func (s *Spender) shift() {
	copy(s.lots[:], s.lots[1:])
	s.lots[maxLots-1] = lot{}
	s.count--
}

// Spend takes cost units at a time, whole or not at all. If ok is false, credits are short
// of the cost, those that there are stay, and the holder has to ask its issuer, which
// alone denies. A cost that is not positive and finite is never covered.
func (s *Spender) Spend(nowMillis int64, cost float64) (d throttlekit.Decision, ok bool) {
	if first := &s.lots[0]; first.credits > cost && cost > 0 && first.expiresAt > nowMillis {
		first.credits -= cost
		s.credits -= cost
		return throttlekit.Decision{Allowed: true, Limit: s.limit, Remaining: floor(s.credits), ResetAtMillis: s.expiresAt}, true
	}
	s.discard(nowMillis)
	return s.take(nowMillis, cost)
}

func (s *Spender) take(nowMillis int64, cost float64) (d throttlekit.Decision, ok bool) {
	if !(s.credits >= cost && cost > 0) {
		return d, false
	}
	s.credits -= cost
	for rest := cost; rest > 0; {
		if first := &s.lots[0]; first.credits > rest || s.count == 1 {
			first.credits -= rest
			break
		}
		rest -= s.lots[0].credits
		s.shift()
	}
	return s.allow(nowMillis), true
}

func (s *Spender) allow(nowMillis int64) throttlekit.Decision {
	d := throttlekit.Decision{Allowed: true, Limit: s.limit, Remaining: floor(s.credits), ResetAtMillis: s.expiresAt}
	if !s.granted {
		d.ResetAtMillis = nowMillis + s.ttl
	}
	return d
}

// Reset forgets all credits and grants.
func (s *Spender) Reset() {
	*s = Spender{limit: s.limit, ttl: s.ttl, carryover: s.carryover}
}

// Reserve asks an issuer for at least enough units to cover wants. It returns what the
// issuer granted and until when it may be spent, or the issuer's denial.
type Reserve func(wants float64) (units float64, expiresAtMillis int64, denial *throttlekit.Decision, err error)

// maxRounds bounds how many grants one request may gather.
const maxRounds = 1024

// SpendOrRefresh takes cost units and reserves as often as it takes to cover them. Partial
// grants add up. A denial is returned as the issuer gave it. What has expired is discarded
// once, before anything is reserved, so a clock that is ahead of the issuer's cannot burn
// grants: each request is served by the grant that it asked for.
//
// The error matches [throttlekit.ErrInvalid] if the cost does, is that of reserve, or says
// that the issuer granted nothing without denying.
func (s *Spender) SpendOrRefresh(nowMillis int64, cost float64, reserve Reserve) (throttlekit.Decision, error) {
	if err := validCost(cost); err != nil {
		return throttlekit.Decision{}, err
	}
	s.discard(nowMillis)
	for range maxRounds {
		if d, ok := s.take(nowMillis, cost); ok {
			return d, nil
		}
		units, expiresAt, denial, err := reserve(cost)
		switch {
		case err != nil:
			return throttlekit.Decision{}, err
		case denial != nil:
			return *denial, nil
		case !(units > 0) || math.IsInf(units, 1):
			return throttlekit.Decision{}, fmt.Errorf("lease: zero-capacity grant: the issuer granted %v units and no denial", units)
		}
		s.Grant(units, expiresAt)
	}
	return throttlekit.Decision{}, fmt.Errorf("lease: %d grants did not cover a cost of %v", maxRounds, cost)
}

func validCost(cost float64) error {
	if cost > 0 && cost <= throttlekit.MaxSafe {
		return nil
	}
	return &throttlekit.InvalidError{
		Field: "cost", Value: cost, Rule: "must be a finite number greater than 0 and at most 9007199254740991",
	}
}

// floor is ⌊x⌋, not below 0 and saturated.
func floor(x float64) int64 {
	if x < throttlekit.MaxSafe {
		return max(0, int64(x))
	}
	return throttlekit.MaxSafe
}
