package lease

import (
	"sync"

	"github.com/throttlekit/throttlekit-go"
)

// denial is what the store said, and for which cost and until when it holds.
type denial struct {
	decision throttlekit.Decision
	cost     float64
	until    int64
}

// denials remembers one denial for each key, up to a bound.
type denials struct {
	room int

	mu     sync.Mutex
	held   map[string]denial
	resets uint64 // so that a denial from before a reset is not kept after it
}

func newDenials(room int) *denials {
	return &denials{room: max(1, room), held: make(map[string]denial)}
}

// find is the denial of a request, with the time that is left of it. Without one, resets is
// what keep wants to know.
func (s *denials) find(key string, cost float64, now int64) (d throttlekit.Decision, ok bool, resets uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.held[key]
	switch {
	case !ok || cost < held.cost:
		return d, false, s.resets
	case now >= held.until:
		delete(s.held, key)
		return d, false, s.resets
	}
	d = held.decision
	d.Remaining, d.RetryAfterMillis = 0, held.until-now
	return d, true, s.resets
}

// keep remembers a denial. Any other makes room for it, preferably one that has ended.
func (s *denials) keep(key string, resets uint64, d denial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if resets != s.resets {
		return
	}
	if _, ok := s.held[key]; !ok && len(s.held) >= s.room {
		var victim string
		seen, soonest := 0, int64(0)
		for other, held := range s.held {
			if seen == 0 || held.until < soonest {
				victim, soonest = other, held.until
			}
			if seen++; seen == evictionSample {
				break
			}
		}
		delete(s.held, victim)
	}
	s.held[key] = d
}

func (s *denials) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, key)
	s.resets++
}
