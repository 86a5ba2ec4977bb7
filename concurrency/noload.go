package concurrency

import "time"

// noLoad is the windowed minimum of latencies. What it forgets, and when, is decided by requests
// that were alone with the backend, or nearly: only they say what it takes without load. All
// others can only be slower than that, so they may lower the minimum, and never raise it.
//
// Each latency has the number of the lone request that it is or follows; the minimum is over
// the last so many numbers. Of latencies that a later one undercuts none is kept, so what is
// kept ascends, and the first is the minimum. Source: D. Lemire, Streaming maximum-minimum
// filter using no more than three comparisons per element (2006).
type noLoad struct {
	number      int64
	head, count int
	ring        []latency
}

type latency struct {
	number int64
	rtt    time.Duration
}

func newNoLoad(window int) noLoad { return noLoad{ring: make([]latency, window)} }

// add records a latency. A lone one makes the oldest be forgotten.
func (n *noLoad) add(rtt time.Duration, alone bool) {
	push := alone || n.count == 0
	if alone {
		n.number++
		if n.count > 0 && n.ring[n.head].number <= n.number-int64(len(n.ring)) {
			n.head, n.count = n.at(1), n.count-1
		}
	}
	for n.count > 0 && n.ring[n.at(n.count-1)].rtt >= rtt {
		n.count--
		push = true
	}
	if push { // the last one kept, if any, has an older number
		n.ring[n.at(n.count)] = latency{n.number, rtt}
		n.count++
	}
}

// at is the place of the i-th latency that is kept.
func (n *noLoad) at(i int) int {
	if i += n.head; i >= len(n.ring) {
		i -= len(n.ring)
	}
	return i
}

// reset forgets all but one.
func (n *noLoad) reset(rtt time.Duration) {
	n.head, n.count = 0, 0
	n.add(rtt, true)
}

// least is the minimum, 0 if there is none.
func (n *noLoad) least() time.Duration {
	if n.count == 0 {
		return 0
	}
	return n.ring[n.head].rtt
}
