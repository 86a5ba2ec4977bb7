package measure

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Handoff is how long a cache line takes from one CPU to another, at best, or 0 if no two CPUs were free for the time of
// the trial. What two goroutines can do on one key is decided by it more than by anything else: two threads of one core
// have 20 or 30 ns, two cores far apart ten times as much.
func Handoff(trial time.Duration) time.Duration {
	const batch = 1000
	var line atomic.Int64
	var over atomic.Bool
	defer time.AfterFunc(trial, func() { over.Store(true) }).Stop()
	fastest := time.Duration(math.MaxInt64)
	bounce := func(parity int64) {
		began := time.Now()
		for i := parity; ; i += 2 {
			for line.Load() != i {
				if over.Load() {
					return
				}
			}
			line.Store(i + 1)
			if parity == 0 && i%batch == 0 {
				now := time.Now()
				if i > 0 {
					fastest = min(fastest, now.Sub(began)/batch)
				}
				began = now
			}
		}
	}
	var both sync.WaitGroup
	both.Go(func() { bounce(0) })
	both.Go(func() { bounce(1) })
	both.Wait()
	if fastest == math.MaxInt64 {
		return 0
	}
	return fastest
}
