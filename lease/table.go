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
	tableShards    = 32
	evictionSample = 8
	defaultMaxKeys = 65_536
	// returnTimeout bounds giving back the units of one key.
	returnTimeout = time.Second
)

// table keeps one holder for each key, up to a bound.
type table struct {
	seed   maphash.Seed
	room   int // keys in a shard
	make   func(key string) (*Holder, error)
	now    func() time.Duration
	shards [tableShards]tableShard

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
	t := &table{
		seed: maphash.MakeSeed(), room: max(1, maxKeys/tableShards), make: create, now: now,
		idleAfter: idleAfter, stop: make(chan struct{}),
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
	return &t.shards[maphash.String(t.seed, key)%tableShards]
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
	for i := range t.shards {
		s := &t.shards[i]
		var idle []*Holder
		s.mu.Lock()
		for key, h := range s.held {
			if h.idle(now, t.idleAfter) {
				delete(s.held, key)
				idle = append(idle, h)
			}
		}
		s.mu.Unlock()
		for _, h := range idle {
			_ = t.give(h) // there is nobody to tell, and nothing to do about it
			select {
			case <-t.stop:
				return
			default:
			}
		}
	}
}

func (t *table) give(h *Holder) error {
	ctx, cancel := context.WithTimeout(context.Background(), returnTimeout)
	defer cancel()
	return h.Close(ctx)
}

// close closes every holder. It gives up on returning units when one cannot be returned:
// the source is then most likely gone.
func (t *table) close() error {
	t.once.Do(func() {
		close(t.stop)
		t.done.Wait()
		for i := range t.shards {
			s := &t.shards[i]
			s.mu.Lock()
			held := s.held
			s.held, s.closed = nil, true
			s.mu.Unlock()
			for _, h := range held {
				if t.closing != nil {
					h.forget()
				} else {
					t.closing = t.give(h)
				}
			}
		}
	})
	return t.closing
}
