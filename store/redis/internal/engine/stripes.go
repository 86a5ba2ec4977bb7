package engine

import (
	"context"
	"hash/maphash"
	"slices"
)

// stripes serializes, within this process, the transitions that run here: callers on one key
// take turns instead of undoing each other's attempts. Keys share a stripe by chance.
type stripes struct {
	seed  maphash.Seed
	locks []chan struct{} // each holds a token while it is free
}

const stripeCount = 256

func newStripes() stripes {
	s := stripes{seed: maphash.MakeSeed(), locks: make([]chan struct{}, stripeCount)}
	for i := range s.locks {
		s.locks[i] = make(chan struct{}, 1)
		s.locks[i] <- struct{}{}
	}
	return s
}

// lock takes the stripes of all keys, in one order for everybody, or gives up when ctx ends.
func (s *stripes) lock(ctx context.Context, keys ...string) (unlock func(), err error) {
	places := make([]int, len(keys))
	for i, key := range keys {
		places[i] = int(maphash.String(s.seed, key) % stripeCount)
	}
	slices.Sort(places)
	places = slices.Compact(places)
	for i, place := range places {
		select {
		case <-s.locks[place]:
		case <-ctx.Done():
			s.unlock(places[:i])
			return nil, ctx.Err()
		}
	}
	return func() { s.unlock(places) }, nil
}

func (s *stripes) unlock(places []int) {
	for _, place := range places {
		s.locks[place] <- struct{}{}
	}
}
