package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/sethvargo/go-limiter/memorystore"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
)

const (
	millionKeys = 1_000_000
	// Tables grow by doubling, and a million keys fill those of our store and of Go's maps differently. A tenth more is
	// past the point at which ours have grown, and so about the worst that a key can cost there.
	awkwardKeys = 1_100_000
	// memoryRounds is how often each heap is built. Heaps hardly differ, and building one takes a second.
	memoryRounds = 5
)

// holder is something that remembers keys.
type holder struct {
	name   string
	keys   int
	target float64 // bytes for each key; 0 for none
	once   bool    // not measured again and again
	note   string
	// fill makes it remember keys, which stay with the caller, and returns it, so that it can be kept from the collector.
	fill func(keys []string) (any, error)
}

var holders = []holder{
	{name: "gcra", keys: millionKeys, target: 80, note: "Ours", fill: filled(roomy)},
	{
		name: "tokenBucket", keys: millionKeys, target: 112, note: "Ours",
		fill: filled(throttlekit.TokenBucket{Capacity: plenty, RefillPerSec: 1}),
	},
	{
		name: "fixedWindow", keys: millionKeys, target: 112, note: "Ours",
		fill: filled(throttlekit.FixedWindow{Limit: plenty, Window: aDay}),
	},
	{
		name: "go-limiter", keys: millionKeys, note: "sethvargo/go-limiter v0.7.1, memorystore with its default allocation",
		fill: fillGoLimiter,
	},
	{name: "gcra", keys: awkwardKeys, once: true, note: "Ours, its tables just doubled; measured once", fill: filled(roomy)},
}

func filled(strategy throttlekit.Strategy) func(keys []string) (any, error) {
	return func(keys []string) (any, error) { return remember(strategy, nil, keys) }
}

func remember(strategy throttlekit.Strategy, clock throttlekit.Clock, keys []string) (*throttlekit.Limiter, error) {
	l, err := throttlekit.NewLimiter(strategy, throttlekit.WithClock(clock))
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if d, err := l.Check(context.Background(), key); err != nil {
			return nil, err
		} else if !d.Allowed {
			return nil, errDenied
		}
	}
	return l, nil
}

func fillGoLimiter(keys []string) (any, error) {
	store, err := memorystore.New(&memorystore.Config{Tokens: plenty, Interval: aDay})
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if _, _, _, ok, err := store.Take(context.Background(), key); err != nil {
			return nil, err
		} else if !ok {
			return nil, errDenied
		}
	}
	return store, nil
}

func memoryRows(measure.Schedule) []report.Row {
	// What the collector does while heaps grow takes most of the time and changes nothing that is measured.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	keys := packed(newKeys(awkwardKeys))
	perKey := make([][]float64, len(holders))
	held := make([]float64, len(holders))
	errs := make([]error, len(holders))
	for round := range memoryRounds {
		for i, h := range holders {
			if h.once && round > 0 {
				continue
			}
			heap, err := h.weigh(keys[:h.keys])
			if err != nil {
				errs[i] = err
				continue
			}
			perKey[i] = append(perKey[i], float64(heap.Live)/float64(h.keys))
			held[i] = float64(heap.Held) / float64(h.keys)
		}
	}
	var rows []report.Row
	for i, h := range holders {
		name := fmt.Sprintf("%s: a key among %.1f million", h.name, float64(h.keys)/1e6)
		row := report.Measured(name, "bytes", measure.Summarize(perKey[i]), errs[i]).Saying(
			"%s. Growth of the live heap (HeapAlloc after two collections) by %d live keys, divided by them; the texts of the keys"+
				" are there before. In pages (HeapInuse): %.0f bytes.", h.note, h.keys, held[i])
		if h.target > 0 {
			row = row.AtMost(h.target)
		}
		rows = append(rows, row)
	}
	return append(rows, givenBack(keys[:millionKeys]))
}

// packed are the same keys in one piece of memory, which spares the collector a million objects.
func packed(keys []string) []string {
	all := strings.Join(keys, "")
	for i, key := range keys {
		keys[i], all = all[:len(key)], all[len(key):]
	}
	return keys
}

// weigh is what the heap grows by when h remembers keys.
func (h holder) weigh(keys []string) (measure.Heap, error) {
	before := measure.ReadHeap()
	full, err := h.fill(keys)
	grown := measure.ReadHeap().Since(before)
	runtime.KeepAlive(full)
	return grown, err
}

func givenBack(keys []string) report.Row {
	left := make([]float64, 0, memoryRounds)
	var failed error
	for range memoryRounds {
		share, err := shareLeft(keys)
		if err != nil {
			failed = err
			break
		}
		left = append(left, share)
	}
	return report.Measured("expired keys are given back: what is left", "ratio", measure.Summarize(left), failed).AtMost(0.05).Saying(
		"Live heap of a limiter (gcra, manual clock) after %d keys have expired and Sweep was called once, over its live heap when"+
			" it was full.", len(keys))
}

// shareLeft fills a limiter, lets everything expire, and weighs it before and after.
func shareLeft(keys []string) (float64, error) {
	before := measure.ReadHeap()
	clock := throttlekit.NewManualClock(time.Now().UnixMilli())
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
	if err != nil {
		return 0, err
	}
	l, err := throttlekit.NewLimiter(roomy, throttlekit.WithStore(store))
	if err != nil {
		return 0, err
	}
	for _, key := range keys {
		if _, err := l.Check(context.Background(), key); err != nil {
			return 0, err
		}
	}
	full := measure.ReadHeap().Since(before)
	clock.Advance(time.Hour)
	store.Sweep()
	empty := measure.ReadHeap().Since(before)
	runtime.KeepAlive(l)
	return float64(empty.Live) / float64(full.Live), store.Close()
}
