package concurrency

import (
	"math"
	"time"
)

// part is the part of a fleet's slots that a guard may use. That of a guard by itself is all of
// them, for good. It is changed and read under the guard's lock, so that a permit costs no other.
type part struct {
	slots int           // how many may be in flight
	until time.Duration // from then on nobody is admitted, or never, or fenced

	// What makes it worth telling the fleet something before it is time to.
	short bool          // slots are fewer than an equal part, so who finds none is news
	over  bool          // more were reported in flight than there are slots; that they are not is news
	news  chan struct{} // has room for one; nil if nobody wants to know
}

const (
	unlimited = math.MaxInt
	never     = time.Duration(math.MaxInt64)
	fenced    = time.Duration(math.MinInt64) // in until: the guard's time has passed, and everybody knows
)

// refused takes note of a request that was refused while so many were in flight.
func (p *part) refused(inFlight int) {
	if p.short && inFlight >= p.slots {
		p.tell()
	}
}

// ended takes note of a permit that has ended and left so many in flight.
func (p *part) ended(inFlight int) {
	if p.over && inFlight <= p.slots {
		p.tell()
	}
}

// tell says that there is news.
func (p *part) tell() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}
