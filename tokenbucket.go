package throttlekit

// TokenBucket holds up to Capacity tokens, which flow back continuously at
// RefillPerSec; a request takes its cost in tokens or is denied. It admits the same
// envelope as a [GCRA] and reports tokens instead of arrival times.
//
// In any interval of t seconds it admits at most Capacity + t·RefillPerSec units.
// Specification: §2.2. Beyond it, a clock that steps back never refills an interval
// twice: the record remembers the latest time it has seen.
type TokenBucket struct {
	// Capacity is the most tokens the bucket holds; positive.
	Capacity float64
	// RefillPerSec is how many tokens come back per second; positive, fractions allowed.
	RefillPerSec float64
}

// tokenBucket keeps the tokens in a record's A. B is one more than the time of the last
// refill, so that 0 says that there was none.
type tokenBucket struct {
	spec     TokenBucket
	perMilli float64
	ttl      int64 // time from empty to full
	limit    int64
}

// Rule implements [Strategy].
func (s TokenBucket) Rule() (Rule, error) {
	var c checks
	c.positive("capacity", s.Capacity)
	c.positive("refillPerSec", s.RefillPerSec)
	if len(c) > 0 {
		return nil, c.err()
	}
	perMilli := s.RefillPerSec / 1000
	full := s.Capacity / perMilli
	c.require(perMilli > 0 && full <= MaxSafe, "refillPerSec", s.RefillPerSec, "must fill the capacity within 9007199254740991 ms")
	if len(c) > 0 {
		return nil, c.err()
	}
	return &tokenBucket{spec: s, perMilli: perMilli, ttl: max(1, ceil(full)), limit: whole(s.Capacity)}, nil
}

func (b *tokenBucket) Name() string       { return "tokenBucket" }
func (b *tokenBucket) Strategy() Strategy { return b.spec }
func (b *tokenBucket) Limit() int64       { return b.limit }

func (b *tokenBucket) Encode(rec Record) ([]byte, error) {
	return encodePair("tokens", "last", Record{A: rec.A, B: rec.B - 1})
}

func (b *tokenBucket) Decode(text []byte) (Record, error) {
	rec, err := decodePair(b.Name(), "tokens", "last", text)
	rec.B++
	return rec, err
}

// tokens is what the bucket holds at now, and the latest time it has seen.
func (b *tokenBucket) tokens(rec Record, now float64) (tokens, last float64) {
	if rec.B == 0 {
		return b.spec.Capacity, now
	}
	last = rec.B - 1
	elapsed := max(0, now-last)
	return min(b.spec.Capacity, rec.A+float64(elapsed*b.perMilli)), last + elapsed
}

// wait is the time in which missing tokens flow back, in whole milliseconds.
func (b *tokenBucket) wait(missing float64) int64 { return ceil(missing / b.perMilli) }

// at adds a wait to a time and saturates.
func at(nowMillis, wait int64) int64 { return min(MaxSafe, nowMillis+wait) }

func (b *tokenBucket) Apply(rec Record, nowMillis int64, cost float64) (Record, Decision, int64) {
	tokens, last := b.tokens(rec, float64(nowMillis))
	if tokens < cost {
		resetAt := at(nowMillis, b.wait(b.spec.Capacity-tokens))
		return rec, deny(b.limit, floor0(tokens), resetAt, b.wait(cost-tokens)), 0
	}
	left := tokens - cost
	resetAt := at(nowMillis, b.wait(b.spec.Capacity-left))
	behind := ceil(last - float64(nowMillis)) // by a clock that stepped back
	return Record{A: left, B: last + 1}, allow(b.limit, floor0(left), resetAt), b.ttl + behind
}

func (b *tokenBucket) Peek(rec Record, nowMillis int64) Decision {
	tokens, _ := b.tokens(rec, float64(nowMillis))
	resetAt := at(nowMillis, b.wait(b.spec.Capacity-tokens))
	if tokens >= 1 {
		return allow(b.limit, floor0(tokens), resetAt)
	}
	return deny(b.limit, floor0(tokens), resetAt, b.wait(1-tokens))
}

func (b *tokenBucket) Forecast(rec Record, nowMillis int64, cost float64) Forecast {
	tokens, _ := b.tokens(rec, float64(nowMillis))
	f := Forecast{SpendableNow: floor0(tokens / cost), NextReplenishAtMillis: nowMillis, FullAtMillis: nowMillis}
	if tokens < b.spec.Capacity {
		f.NextReplenishAtMillis = at(nowMillis, b.wait(float64(floor(tokens)+1)-tokens))
		f.FullAtMillis = at(nowMillis, b.wait(b.spec.Capacity-tokens))
	}
	return f
}
