package measure

import "runtime"

// Heap is what the heap holds after everything that can be collected has been.
type Heap struct {
	Live int64 // bytes in objects, as large as the allocator made them
	Held int64 // bytes in the pages that these objects lie in
}

// ReadHeap collects garbage and looks. It does so twice: what a finalizer or a pool kept alive once is gone then.
func ReadHeap() Heap {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Heap{Live: int64(m.HeapAlloc), Held: int64(m.HeapInuse)}
}

// Since is what has been added to an earlier heap.
func (h Heap) Since(earlier Heap) Heap {
	return Heap{Live: h.Live - earlier.Live, Held: h.Held - earlier.Held}
}

// Allocations is how many heap objects the process makes per operation of c: the median over rounds. All goroutines are
// counted, so a single one is not evidence against c, but a median is.
func Allocations(c Contestant, rounds, ops int) (Figure, error) {
	if c.Close != nil {
		defer c.Close()
	}
	if _, err := timed(c, ops); err != nil { // warm up
		return Figure{}, err
	}
	counts := make([]float64, rounds)
	for i := range counts {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := timed(c, ops)
		runtime.ReadMemStats(&after)
		if err != nil {
			return Figure{}, err
		}
		counts[i] = float64(after.Mallocs-before.Mallocs) / float64(ops)
	}
	return Summarize(counts), nil
}
