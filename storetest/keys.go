package storetest

import (
	"errors"
	"fmt"
	"strings"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// distinct charges every key with a cost of its own and fails the case unless each
// counter stands at exactly that, before and after one of them is reset.
func (f *fixture) distinct(keys []string) {
	f.Helper()
	for i, key := range keys {
		f.apply(key, lasting, float64(i+1))
	}
	for i, key := range keys {
		f.expect(key, int64(i+1), "since it was charged alone")
	}
	for i, key := range keys {
		f.reset(key)
		f.expect(key, 0, "after its Reset")
		if next := i + 1; next < len(keys) {
			f.expect(keys[next], int64(next+1), "after Reset of another key")
		}
	}
}

// oddKeys: a key is any text, and two texts that differ are two keys.
func oddKeys(f *fixture) {
	f.distinct([]string{
		"", " ", "  ", "\n", "\x00", "\x00\x00", "a", "a\x00", "a\x00b", "\x00a", "A", "a ", " a",
		"\xff", "\xff\xfe", "\xc3", "\xc3\xa9", "e\u0301", "\ufffd", "\xed\xa0\x80", "🙂", "🙂🙂", "%", "%00", `\x00`, `\`, "'", `"`, "*", "?",
		":", "::", "a:b", "a:b:", ":a:b", "a::b", "a:b:c", "b:c", "{a}", "{a}b", "{a}:b", "{}", "__proto__", "null", "0", "00",
	})
}

// longKeys: keys of 64 KiB that differ in one byte are two keys. A store may refuse them, but not confuse them.
func longKeys(f *fixture) {
	const length = 64 << 10
	body := strings.Repeat("k", length-1)
	keys := []string{body + "a", body + "b", "a" + body, body, body + "\x00"}
	if _, err := f.Store.Apply(f.ctx, keys[0], reader{}, 1); errors.Is(err, throttlekit.ErrInvalid) {
		f.Logf("keys of %d bytes are refused: %v", length, err)
		return
	}
	f.distinct(keys)
}

// manyKeys: a thousand keys, twice round, in batches.
func manyKeys(f *fixture) {
	const batches, size, limit = 10, 100, 5
	l := f.limiter(strategy("fixedWindow", limit))
	for round := range int64(2) {
		for b := range batches {
			keys := make([]string, size)
			for i := range keys {
				keys[i] = fmt.Sprintf("user:%d", b*size+i)
			}
			decisions, err := l.CheckMany(f.ctx, keys, 1)
			if err != nil || len(decisions) != size {
				f.Fatalf("%d decisions, %v", len(decisions), err)
			}
			for i, d := range decisions {
				if want := limit - 1 - round; !d.Allowed || d.Remaining != want {
					f.Fatalf("%q in round %d: %+v, want %d left", keys[i], round, d, want)
				}
			}
		}
	}
}

// prefixes: limiters with different prefixes on one store do not see each other's keys,
// and a prefix is nothing but the front of a key.
func prefixes(f *fixture) {
	s := strategy("fixedWindow", 10)
	type view struct {
		prefix, key string
	}
	views := []view{{"", "k"}, {"a", "k"}, {"b", "k"}, {"a", "b"}, {"ab", "k"}, {"a", ""}, {":", "k"}, {"a:", "k"}, {"a\x00", "k"}}
	for i, v := range views {
		d, err := f.limiter(s, throttlekit.WithPrefix(v.prefix)).CheckN(f.ctx, v.key, float64(i+1))
		if err != nil || !d.Allowed || d.Remaining != int64(10-(i+1)) {
			f.Errorf("%q under the prefix %q: %+v, %v, want %d left", v.key, v.prefix, d, err, 10-(i+1))
		}
	}
	a := f.limiter(s, throttlekit.WithPrefix("a"))
	if err := a.Reset(f.ctx, "k"); err != nil {
		f.Fatal(err)
	}
	if d, err := a.Peek(f.ctx, "k"); err != nil || d.Remaining != 10 {
		f.Errorf("after Reset: %+v, %v", d, err)
	}
	for i, v := range views {
		if v.prefix == "a" && v.key == "k" {
			continue
		}
		full := v.key
		if v.prefix != "" {
			full = v.prefix + ":" + v.key
		}
		d, err := f.limiter(s).Peek(f.ctx, full)
		if err != nil || d.Remaining != int64(10-(i+1)) {
			f.Errorf("%q without a prefix: %+v, %v, want %d left", full, d, err, 10-(i+1))
		}
	}
}
