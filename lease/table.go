package lease

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

const (
	mostShards     = 32
	leastInShard   = 64 // keys; fewer would make neighbours evict each other
	evictionSample = 8
	defaultMaxKeys = 65_536
	// returnTimeout bounds giving back the units of all keys that are idle, or at the end.
	returnTimeout = 5 * time.Second
	// returnAtOnce is how many keys' units are given back at the same time.
	returnAtOnce = 32
)

// table keeps one holder for each key, up to a bound.
type table struct {
	seed   maphash.Seed
	room   int // keys in a shard
	make   func(key string) (*Holder, error)
	now    func() time.Duration
	shards []tableShard

	idleAfter time.Duration
	stop      chan struct{}
	done      sync.WaitGroup
	once      sync.Once
	closing   error
}

type tableShard struct {
	mu     sync.RWMutex
	held   map[string]*Holder
	closed bool
}

// newTable returns a table that makes its holders. If idleAfter is positive, holders that
// nobody has used for longer are closed.
func newTable(maxKeys int, idleAfter time.Duration, now func() time.Duration, create func(key string) (*Holder, error)) *table {
	shards := max(1, min(mostShards, maxKeys/leastInShard))
	t := &table{
		seed: maphash.MakeSeed(), room: max(1, maxKeys/shards), make: create, now: now,
		idleAfter: idleAfter, stop: make(chan struct{}), shards: make([]tableShard, shards),
	}
	for i := range t.shards {
		t.shards[i].held = make(map[string]*Holder)
	}
	if idleAfter > 0 {
		t.done.Go(t.returnIdle)
	}
	return t
}

func (t *table) shard(key string) *tableShard {
	return &t.shards[maphash.String(t.seed, key)%uint64(len(t.shards))]
}

// checkN asks the holder of a key. One that was evicted or returned meanwhile is replaced.
func (t *table) checkN(ctx context.Context, key string, cost float64) (throttlekit.Decision, error) {
	for {
		h, err := t.holder(key)
		if err != nil {
			return throttlekit.Decision{}, err
		}
		if d, err := h.CheckN(ctx, cost); !errors.Is(err, throttlekit.ErrClosed) || !h.gone() {
			return d, err
		}
	}
}

func (t *table) holder(key string) (*Holder, error) {
	s := t.shard(key)
	s.mu.RLock()
	h := s.held[key]
	s.mu.RUnlock()
	if h != nil {
		return h, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, throttlekit.ErrClosed
	}
	if h, ok := s.held[key]; ok {
		return h, nil
	}
	h, err := t.make(key)
	if err != nil {
		return nil, err
	}
	if len(s.held) >= t.room {
		s.evict()
	}
	s.held[key] = h
	return h, nil
}

// evict drops the holder that was used least recently among a few. What it held is lost
// to everybody, which costs throughput and no limit.
func (s *tableShard) evict() {
	var victim string
	var oldest *Holder
	var used int64
	seen := 0
	for key, h := range s.held {
		if last := h.used(); oldest == nil || last < used {
			victim, oldest, used = key, h, last
		}
		if seen++; seen == evictionSample {
			break
		}
	}
	delete(s.held, victim)
	oldest.forget()
}

// forget drops what is known of a key.
func (t *table) forget(key string) {
	s := t.shard(key)
	s.mu.Lock()
	h := s.held[key]
	delete(s.held, key)
	s.mu.Unlock()
	if h != nil {
		h.forget()
	}
}

// returnIdle closes the holders that nobody uses, from time to time.
func (t *table) returnIdle() {
	ticker := time.NewTicker(t.idleAfter)
	defer ticker.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-ticker.C:
			t.sweep()
		}
	}
}

// sweep closes the holders that have been idle for too long. What their source does not
// take back is lost, and the next sweep does not try again.
func (t *table) sweep() {
	now := t.now().Milliseconds()
	var idle []*Holder
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for key, h := range s.held {
			if h.idle(now, t.idleAfter) {
				delete(s.held, key)
				idle = append(idle, h)
			}
		}
		s.mu.Unlock()
	}
	_ = t.give(idle) // there is nobody to tell, and nothing to do about it
}

// give closes holders, some at a time. When the time is over, or the source does not take
// units back and so is most likely gone, the others only forget theirs.
func (t *table) give(holders []*Holder) error {
	ctx, cancel := context.WithTimeout(context.Background(), returnTimeout)
	defer cancel()
	var first struct {
		sync.Once

		err error
	}
	var work sync.WaitGroup
	slots := make(chan struct{}, returnAtOnce)
	for _, h := range holders {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() != nil {
				h.forget()
				return
			}
			if err := h.Close(ctx); err != nil {
				first.Do(func() { first.err = err })
				cancel()
				h.forget()
			}
		})
	}
	work.Wait()
	return first.err
}

// close closes every holder.
func (t *table) close() error {
	t.once.Do(func() {
		close(t.stop)
		t.done.Wait()
		var all []*Holder
		for i := range t.shards {
			s := &t.shards[i]
			s.mu.Lock()
			for _, h := range s.held {
				all = append(all, h)
			}
			s.held, s.closed = nil, true
			s.mu.Unlock()
		}
		t.closing = t.give(all)
	})
	return t.closing
}
