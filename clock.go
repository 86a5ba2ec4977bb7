package throttlekit

import (
	"sync"
	"sync/atomic"
	"time"
)

// Clock tells a store the time. Implementations must be safe for concurrent use.
type Clock interface {
	// NowMillis is the current time in epoch milliseconds, not negative.
	NowMillis() int64
}

// SystemClock tells the wall clock's time. It reads the processor's monotonic clock,
// which is cheaper, and consults the wall clock itself once a second, so a step of the
// wall clock takes effect within a second.
type SystemClock struct{}

// anchor ties the monotonic clock to the wall clock.
type anchor struct {
	read time.Duration // since processStart
	wall int64         // epoch nanoseconds at read
}

const anchorHolds = time.Second

var (
	processStart = time.Now() //nolint:forbidigo // the origin of the system clock
	lastAnchor   atomic.Pointer[anchor]
)

// NowMillis is the wall clock in epoch milliseconds.
func (SystemClock) NowMillis() int64 {
	read := time.Since(processStart) //nolint:forbidigo // this is the system clock
	a := lastAnchor.Load()
	if a == nil || uint64(read-a.read) >= uint64(anchorHolds) {
		a = &anchor{read: read, wall: time.Now().UnixNano()} //nolint:forbidigo // this is the system clock
		lastAnchor.Store(a)
	}
	return (a.wall + int64(read-a.read)) / int64(time.Millisecond)
}

// ManualClock stands still until it is told to move. It drives tests and replays.
// The zero value stands at the epoch.
type ManualClock struct{ now atomic.Int64 }

// NewManualClock returns a clock that stands at an instant in epoch milliseconds.
func NewManualClock(nowMillis int64) *ManualClock {
	c := new(ManualClock)
	c.Set(nowMillis)
	return c
}

// NowMillis is the instant the clock stands at.
func (c *ManualClock) NowMillis() int64 { return c.now.Load() }

// Set moves the clock to an instant in epoch milliseconds; it may go backwards.
func (c *ManualClock) Set(nowMillis int64) { c.now.Store(nowMillis) }

// Advance moves the clock forward by d, truncated to whole milliseconds. A negative d does nothing.
func (c *ManualClock) Advance(d time.Duration) { c.now.Add(max(0, d.Milliseconds())) }

// CoarseClock keeps the wall clock in memory and refreshes it every millisecond, so
// that reading it costs one load. It lags the wall clock by about a millisecond, more
// when the machine is starved of CPU: decisions then come from a slightly older time,
// which can deny a little longer and never admits more. Close stops its goroutine;
// a closed clock reads the wall clock directly.
type CoarseClock struct {
	now  atomic.Int64
	stop chan struct{}
	once sync.Once
	done sync.WaitGroup
}

// NewCoarseClock starts a coarse clock. The caller must Close it.
func NewCoarseClock() *CoarseClock {
	c := &CoarseClock{stop: make(chan struct{})}
	c.now.Store(SystemClock{}.NowMillis())
	c.done.Go(c.run)
	return c
}

// coarseStopped marks a closed coarse clock.
const coarseStopped = 0

func (c *CoarseClock) run() {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.now.Store(SystemClock{}.NowMillis())
		case <-c.stop:
			c.now.Store(coarseStopped)
			return
		}
	}
}

// NowMillis is the wall clock in epoch milliseconds, about a millisecond ago.
func (c *CoarseClock) NowMillis() int64 {
	if now := c.now.Load(); now != coarseStopped {
		return now
	}
	return SystemClock{}.NowMillis()
}

// Close stops the goroutine that keeps the clock and waits for it. It may be called more than once.
func (c *CoarseClock) Close() error {
	c.once.Do(func() { close(c.stop) })
	c.done.Wait()
	return nil
}
