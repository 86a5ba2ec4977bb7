package budget

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/throttlekit/throttlekit-go"
)

// FuzzRecord: whatever a store holds under a key, a step answers with an error or a decision that keeps its rules.
func FuzzRecord(f *testing.F) {
	for _, text := range []string{
		`{"w":0,"s":1}`, `{"w":60000,"s":12,"more":[[0,5]],"live":[{"id":"a","remainder":3,"expires":70000,"total":9,"charged":[[60000,9]]}]}`,
		`{"w":1e15,"s":9007199254740991,"more":[[-1,-5],[2,3]],"live":[{"id":""}]}`, `{"w":1e300,"s":0}`, `null`, `{}`,
	} {
		f.Add([]byte(text), int64(60_500), uint8(1))
	}
	b := &Budget{Windows: []Window{
		{Limit: 20, Width: 60_000_000_000}, {Limit: 50, Cadence: throttlekit.CalendarDay, Zone: "Europe/Berlin"},
	}}
	levels, err := b.levels()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte, now int64, kind uint8) {
		if now < 0 || now > throttlekit.MaxSafe {
			t.Skip("stores give no such time")
		}
		s := &step{op: op(kind % 8), frames: levels[0].frames(now), id: "a", amount: 5, extra: 3, lasts: 1000}
		rec, err := s.Decode(text)
		if err != nil {
			return
		}
		before, err := s.Encode(rec)
		if err != nil {
			t.Fatal(err)
		}
		next, d, ttl := s.Apply(rec, now, 2)
		if after, err := s.Encode(rec); err != nil || !bytes.Equal(after, before) {
			t.Errorf("the step changed the record it was given: %s to %s, %v", before, after, err)
		}
		if d.RetryAfterMillis < 0 || d.Remaining < 0 || !d.Allowed && (d.RetryAfterMillis == 0 || ttl != 0) {
			t.Errorf("%s, op %d at %d: %+v, to live %d", text, s.op, now, d, ttl)
		}
		written, err := s.Encode(next)
		if err != nil || !json.Valid(written) {
			t.Fatalf("%s, %v", written, err)
		}
		again, err := s.Decode(written)
		if err != nil {
			t.Fatalf("%s became %s, which is corrupt: %v", text, written, err)
		}
		if round, err := s.Encode(again); err != nil || !bytes.Equal(round, written) {
			t.Errorf("%s became %s, %v", written, round, err)
		}
	})
}
