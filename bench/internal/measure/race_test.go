package measure

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// short is a race that takes next to no time.
var short = Schedule{Rounds: 5, Slice: 100 * time.Microsecond, Patience: 2}

var spun atomic.Uint64

// spin is a contestant that counts to size once for each operation.
func spin(name string, size int) Contestant {
	return Contestant{Name: name, Run: func(ops int) error {
		sum := uint64(0)
		for i := range ops * size {
			sum += uint64(i) ^ sum>>3
		}
		spun.Add(sum)
		return nil
	}}
}

func TestRaceTellsFastFromSlow(t *testing.T) {
	t.Parallel()
	r := Race(Schedule{Rounds: 9, Slice: time.Millisecond, Patience: 1}, spin("slow", 10_000), spin("fast", 100))
	f, err := r.Ratio(0, 1)
	if err != nil || f.Samples != 9 {
		t.Fatalf("%+v, %v; want 9 samples", f, err)
	}
	if f.Median < 10 { // a hundred, but the machine may be busy
		t.Errorf("100 times the work took %.1f times as long", f.Median)
	}
	if p, err := r.PerOp(1); err != nil || p.Median <= 0 {
		t.Errorf("time per operation %+v, %v", p, err)
	}
}

func TestRaceTakesWhatCounts(t *testing.T) {
	t.Parallel()
	five, two := spin("five", 100), spin("two", 100)
	five.Counts = func() float64 { return 5 }
	two.Counts = func() float64 { return 2 }
	f, err := Race(short, five, two).Ratio(0, 1)
	if err != nil || f.Median != 2.5 || f.Low != 2.5 || f.High != 2.5 {
		t.Errorf("%+v, %v; want 2.5", f, err)
	}
}

func TestRaceGoesOnWithoutThoseThatFail(t *testing.T) {
	t.Parallel()
	errTired := errors.New("tired")
	runs := 0
	late := Contestant{Name: "late", Run: func(int) error {
		if runs++; runs > 12 {
			return errTired
		}
		time.Sleep(200 * time.Microsecond)
		return nil
	}}
	r := Race(Schedule{Rounds: 15, Slice: 100 * time.Microsecond, Patience: 1},
		spin("good", 100),
		Contestant{Name: "bad", Run: func(int) error { return errTired }},
		Contestant{Name: "worse", Run: func(int) error { panic("oh") }},
		late,
		spin("good too", 100),
	)
	if _, err := r.Ratio(0, 4); err != nil {
		t.Errorf("the good ones have no ratio: %v", err)
	}
	for i, want := range map[int]string{1: "bad: tired", 2: "worse: panic: oh", 3: "late: tired"} {
		if _, err := r.Ratio(0, i); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("contestant %d: %v, want %s", i, err, want)
		}
	}
}

func TestRaceCallsReadyAndCloseOnce(t *testing.T) {
	t.Parallel()
	c, log, runs := spin("one", 100), "", 0
	run := c.Run
	c.Run = func(ops int) error { runs++; return run(ops) }
	c.Ready = func() { log += "ready "; runs = 0 }
	c.Close = func() { log += "close" }
	Race(short, c)
	if log != "ready close" {
		t.Errorf("calls: %q", log)
	}
	if runs < short.Rounds {
		t.Errorf("%d slices after ready, want %d or more", runs, short.Rounds)
	}
}

func TestSplitSharesEverythingOut(t *testing.T) {
	t.Parallel()
	var done, calls atomic.Int64
	run := Split(3, func(ops int) error {
		calls.Add(1)
		done.Add(int64(ops))
		return nil
	})
	if err := run(11); err != nil || done.Load() != 11 || calls.Load() != 3 {
		t.Errorf("%d operations in %d calls, %v; want 11 in 3", done.Load(), calls.Load(), err)
	}
	if err := Split(2, func(int) error { panic("oh") })(2); err == nil {
		t.Error("a panic in a goroutine went unnoticed")
	}
}

var kept *[64]byte

func TestAllocations(t *testing.T) {
	t.Parallel()
	c := Contestant{Run: func(ops int) error {
		for range ops {
			kept = new([64]byte)
			kept[0] = 1
		}
		return nil
	}}
	f, err := Allocations(c, 5, 100_000)
	if err != nil || f.Median < 1 || f.Median > 1.5 { // other tests allocate meanwhile
		t.Errorf("%+v, %v; want about 1", f, err)
	}
}

func TestHeapSince(t *testing.T) {
	t.Parallel()
	if got := (Heap{10, 20}).Since(Heap{4, 8}); got != (Heap{6, 12}) {
		t.Errorf("%+v", got)
	}
}

func TestHandoffEnds(t *testing.T) {
	t.Parallel()
	if got := Handoff(20 * time.Millisecond); got < 0 || got > 20*time.Millisecond {
		t.Errorf("a cache line took %v", got)
	}
}
