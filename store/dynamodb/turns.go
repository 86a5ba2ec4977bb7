package dynamostore

import (
	"context"
	"sync"
)

// turns lets the users of one key go one after the other. It remembers only keys that
// somebody uses or waits for.
type turns struct {
	mu   sync.Mutex
	keys map[string]*turn
}

type turn struct {
	free  chan struct{} // holds one element while it is nobody's turn
	users int           // who has the turn, and who waits for it
}

// take waits until it is the caller's turn on key, or for the end of ctx. Unless there is
// an error, the caller must call give.
func (t *turns) take(ctx context.Context, key string) (give func(), err error) {
	t.mu.Lock()
	if t.keys == nil {
		t.keys = make(map[string]*turn)
	}
	k := t.keys[key]
	if k == nil {
		k = &turn{free: make(chan struct{}, 1)}
		k.free <- struct{}{}
		t.keys[key] = k
	}
	k.users++
	t.mu.Unlock()
	select {
	case <-k.free:
		return func() {
			k.free <- struct{}{}
			t.leave(key, k)
		}, nil
	case <-ctx.Done():
		t.leave(key, k)
		return nil, ctx.Err()
	}
}

func (t *turns) leave(key string, k *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(t.keys, key)
	}
}
