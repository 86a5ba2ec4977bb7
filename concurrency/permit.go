package concurrency

// Permit answers the request for a permit. One that is allowed must be ended by Release, Drop or
// Cancel. The first of these ends it, the others and all on a permit that is refused do nothing;
// that holds for all copies together. A permit may be ended by any goroutine.
type Permit struct {
	// Allowed says whether the request may go ahead.
	Allowed bool
	slot    int32 // stands where it takes no room of its own
	// Limit is how many could be in flight when this was decided. During a recalibration that
	// is less than what [Stats] reports.
	Limit int
	// InFlight is how many were in flight then, this one included if it is allowed.
	InFlight int

	guard  *Guard
	serial uint64
}

// Begin says that the work begins now: its latency counts from here, and not from when the permit was
// given, between which something else took time, such as a store that was asked. On a permit that has
// ended or was refused it does nothing.
func (p Permit) Begin() {
	if p.guard != nil {
		p.guard.begin(p.slot, p.serial)
	}
}

type ending int

const (
	released ending = iota
	dropped
	canceled
)

// Release ends a permit whose work was done. Its latency counts.
func (p Permit) Release() { p.end(released) }

// Drop ends a permit whose work failed because of load: it timed out, or was rejected by the
// backend. That lowers the limit. How long it took does not count.
func (p Permit) Drop() { p.end(dropped) }

// Cancel ends a permit whose work did not take place, or whose latency says nothing about the
// backend, such as an answer from a cache or the caller's own mistake. It teaches nothing.
func (p Permit) Cancel() { p.end(canceled) }

func (p Permit) end(how ending) {
	if p.guard != nil {
		p.guard.end(p.slot, p.serial, how)
	}
}
