package monitor

import (
	"sync"

	"github.com/throttlekit/throttlekit-go"
)

// ringSize is how many denials and fences are remembered (server specification §3.2).
const ringSize = 200

// ring remembers the latest entries. The zero value is empty.
type ring[T any] struct {
	mu    sync.Mutex
	n     uint64
	slots [ringSize]T
}

// put writes the next entry over the oldest one.
func (r *ring[T]) put(write func(*T)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	write(&r.slots[r.n%ringSize])
	r.n++
}

// each hands over the entries, oldest first.
func (r *ring[T]) each(read func(*T)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := r.n - min(r.n, ringSize); i < r.n; i++ {
		read(&r.slots[i%ringSize])
	}
}

// Fence is when a guard stopped admitting because its share of a fleet's ceiling may have been given away.
type Fence struct {
	// At is when, in epoch milliseconds.
	At int64 `json:"at"`
	// Guard is the name of its policy.
	Guard string `json:"guard"`
}

// denial is a Denial with a key of its own.
type denial struct {
	at       int64
	policy   string
	key      []byte
	lane     string
	decision throttlekit.Decision
}

// Decision is a [throttlekit.Decision] as documents spell it.
type Decision struct {
	Allowed      bool  `json:"allowed"`
	Limit        int64 `json:"limit"`
	Remaining    int64 `json:"remaining"`
	ResetAt      int64 `json:"resetAt"`
	RetryAfterMs int64 `json:"retryAfterMs"`
}

// Denial is one decision that denied.
type Denial struct {
	// At is when, in epoch milliseconds.
	At int64 `json:"at"`
	// Policy is the name of the policy.
	Policy string `json:"policy"`
	// Key is the key, its first 128 bytes if it is longer.
	Key string `json:"key"`
	// Allowed is false.
	Allowed bool `json:"allowed"`
	// Decision is the answer.
	Decision Decision `json:"decision"`
	// Lane is what denied an Admit: rate, concurrency, cost or policy. Empty otherwise.
	Lane string `json:"lane,omitempty"`
}

func denialOf(at int64, policy, key, lane string, d throttlekit.Decision) Denial {
	return Denial{At: at, Policy: policy, Key: key, Lane: lane, Decision: Decision{
		Allowed: d.Allowed, Limit: d.Limit, Remaining: d.Remaining, ResetAt: d.ResetAtMillis, RetryAfterMs: d.RetryAfterMillis,
	}}
}
