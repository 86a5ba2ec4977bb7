package monitor

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// topKeys is how many keys a ranking shows, and has counters for.
	topKeys = 10
	// keptKey is how many bytes of a key are kept, without the mark of what was cut.
	keptKey = 128
	// cut marks a key that goes on.
	cut = "…"
)

// KeyCount is one row of a ranking of keys.
type KeyCount struct {
	// Key is the key, its first 128 bytes if it is longer.
	Key string `json:"key"`
	// Count is how often it was counted in the window: too high by at most the count of a key that had to make room for it, and
	// of a policy that decides more than 1,024 times in a window an estimate.
	Count int64 `json:"count"`
}

// ranking counts the most frequent keys of a stream in constant space, by the algorithm Space-Saving (Metwally, Agrawal, El Abbadi
// 2005; server specification §3.2). Keys are told apart by their hash, which a stranger cannot foresee. The zero value is empty.
type ranking struct {
	used   int
	hashes [topKeys]uint64
	counts [topKeys]int64
	keys   [topKeys][]byte // as kept
}

// add counts a key as often as weight says.
func (r *ranking) add(hash uint64, key string, weight int64) {
	for i, known := range r.hashes[:r.used] {
		if known == hash {
			r.counts[i] += weight
			return
		}
	}
	r.enter(hash, key, weight)
}

// enter gives a key the first free counter, or takes over the first of the lowest.
func (r *ranking) enter(hash uint64, key string, weight int64) {
	i := r.used
	if i < topKeys {
		r.used++
		r.counts[i] = 0
	} else {
		i = 0
		for j, n := range r.counts {
			if n < r.counts[i] {
				i = j
			}
		}
	}
	r.hashes[i] = hash
	r.counts[i] += weight
	r.keys[i] = keep(r.keys[i][:0], key)
}

// clear forgets everything but the space for keys.
func (r *ranking) clear() { r.used = 0 }

// collect appends the rows to those of other rankings.
func (r *ranking) collect(rows []KeyCount) []KeyCount {
	for i := range r.used {
		rows = append(rows, KeyCount{Key: text(r.keys[i]), Count: r.counts[i]})
	}
	return rows
}

// top is the head of the rows, most first and then by key. It is never nil.
func top(rows []KeyCount) []KeyCount {
	slices.SortFunc(rows, func(a, b KeyCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Key, b.Key))
	})
	rows = rows[:min(len(rows), topKeys)]
	return append(make([]KeyCount, 0, len(rows)), rows...)
}

// keep appends as much of a key as is kept. A copy of its own, lest a short key hold a long message in memory.
func keep(buffer []byte, key string) []byte {
	if need := min(len(key), keptKey+len(cut)); cap(buffer) < need {
		buffer = make([]byte, 0, need) // append would make room for twice as much
	}
	if len(key) <= keptKey {
		return append(buffer, key...)
	}
	end := keptKey
	for back := range utf8.UTFMax { // not through the middle of a character
		if utf8.RuneStart(key[keptKey-back]) {
			end = keptKey - back
			break
		}
	}
	buffer = append(buffer, key[:end]...)
	return append(buffer, cut...)
}

// text is a key that was kept, as text that JSON and protobuf can carry.
func text(kept []byte) string { return strings.ToValidUTF8(string(kept), "\uFFFD") }

// shown is a name or key as text that is not too long to show.
func shown(name string) string { return text(keep(nil, name)) }
