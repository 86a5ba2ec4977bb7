package main

import (
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
)

const manyKeys = 100_000

func coreRows(s measure.Schedule) []report.Row {
	hot, many := newWorkload(1), newWorkload(manyKeys)
	rows := againstFloor(s, hot, "one hot key", "one key")
	rows = append(rows, againstFloor(s, many, "100,000 keys", "100,000 live keys in random order")...)
	rows = append(rows, allocations(s, hot), coarse(s, hot))
	rows = append(rows, contended(s, hot)...)
	return append(rows, peerRows(s, hot)...)
}

// against is the row for how long contestant i of a race takes against contestant j.
func against(r *measure.Result, i, j int, name string) report.Row {
	f, err := r.Ratio(i, j)
	return report.Measured(name, "ratio", f, err)
}

// perOp is what an operation of contestant i took, for a note.
func perOp(r *measure.Result, i int) string {
	f, err := r.PerOp(i)
	if err != nil {
		return "no time"
	}
	if f.Median >= 1000 {
		return fmt.Sprintf("%.1f µs", f.Median/1000)
	}
	return fmt.Sprintf("%.1f ns", f.Median)
}

func againstFloor(s measure.Schedule, w workload, name, keys string) []report.Row {
	const a, official, unofficial = 0, 1, 2
	r := measure.Race(s,
		ours("gcra", roomy, nil, w),
		floor("floor", w),
		floorByOurClock("floor by our clock", w),
	)
	return []report.Row{
		against(r, a, official, "gcra check, "+name+" / floor").AtMost(1.25).Saying(
			"Limiter.Check (gcra, memory store, %s; every check admitted and charged; %s) against the floor: time.Now().UnixMilli(),"+
				" Load from an xsync.Map[string, *atomic.Uint64], one CompareAndSwap (%s). One goroutine.",
			keys, perOp(r, a), perOp(r, official)),
		against(r, a, unofficial, "same / floor that reads our clock").Saying(
			"The same check against the same floor with throttlekit.SystemClock in place of time.Now (%s). No target: it shows how much"+
				" of the row above is owed to the cheaper clock and how much to the store.", perOp(r, unofficial)),
	}
}

func allocations(s measure.Schedule, w workload) report.Row {
	const ops = 100_000
	f, err := measure.Allocations(ours("gcra", roomy, nil, w), s.Rounds, ops)
	return report.Measured("gcra check, one hot key: allocations", "per check", f, err).AtMost(0).Saying(
		"Heap objects made by the whole process during %d checks, divided by them.", ops)
}

func coarse(s measure.Schedule, w workload) report.Row {
	const a, peer = 0, 1
	clock := throttlekit.NewCoarseClock()
	defer func() { _ = clock.Close() }()
	r := measure.Race(s, ours("gcra", roomy, clock, w), goLimiter(w))
	return against(r, a, peer, "gcra check, coarse clock / go-limiter").AtMost(0.6).Saying(
		"Limiter.Check (gcra, CoarseClock, one key; %s) against sethvargo/go-limiter v0.7.1 memorystore Take (%s). One goroutine.",
		perOp(r, a), perOp(r, peer))
}

func contended(s measure.Schedule, w workload) []report.Row {
	const a, peer = 0, 1
	const trial = 50 * time.Millisecond
	s.Patience *= 2 // two CPUs are seldom free at once
	before := measure.Handoff(trial)
	r := measure.Race(s, byTwo(ours("gcra", roomy, nil, w)), byTwo(goLimiter(w)))
	after := measure.Handoff(trial)

	clock := throttlekit.NewCoarseClock()
	defer func() { _ = clock.Close() }()
	c := measure.Race(s, byTwo(ours("gcra", roomy, clock, w)), byTwo(goLimiter(w)))
	f := measure.Race(s, byTwo(floorByOurClock("floor by our clock", w)), byTwo(goLimiter(w)))
	return []report.Row{
		against(r, peer, a, "two goroutines on one hot key: throughput / go-limiter's").AtLeast(1.5).Saying(
			"Checks per second of Limiter.Check (gcra, system clock; one per %s) over those of go-limiter's Take (one per %s): two"+
				" goroutines, half of a fixed number of checks each, timed until both are done. It takes two free CPUs, and depends on"+
				" how far apart they are: a cache line went from one to the other in %v before and %v after (0s: no two were free).",
			perOp(r, a), perOp(r, peer), before, after),
		against(c, peer, a, "same, coarse clock").Saying("The same with a CoarseClock on our side (one per %s, and one per %s). No target.",
			perOp(c, a), perOp(c, peer)),
		against(f, peer, a, "same, the floor that reads our clock").Saying("What there is to gain: the floor of row 2 in place of a check"+
			" (one per %s, and one per %s). No target.", perOp(f, a), perOp(f, peer)),
	}
}

// peerRows inform: what others take for the same thing, alone and under contention.
func peerRows(s measure.Schedule, w workload) []report.Row {
	s.Slice, s.Patience = s.Slice/2, 2 // there are many, and no target
	rows := race(s, contestants(w), "one goroutine", "one goroutine and one key")
	two := contestants(w)
	for i, c := range two {
		two[i] = byTwo(c)
	}
	return append(rows, race(s, two, "two goroutines", "two goroutines on one key, from the first start to the last end")...)
}

// contestants are our gcra and everyone that it is to be seen beside.
func contestants(w workload) []measure.Contestant {
	return []measure.Contestant{
		ours("gcra", roomy, nil, w),
		goLimiter(w),
		throttledGCRA(w),
		ululeWindow(w),
		rateInMap(w),
		ours("tokenBucket", throttlekit.TokenBucket{Capacity: plenty, RefillPerSec: 1}, nil, w),
		ours("fixedWindow", throttlekit.FixedWindow{Limit: plenty, Window: aDay}, nil, w),
		ours("slidingWindow", throttlekit.SlidingWindow{Limit: plenty, Window: aDay}, nil, w),
		ours("slidingWindowLog", throttlekit.SlidingWindowLog{Limit: plenty, Window: time.Millisecond}, nil, w),
	}
}

// peerNotes say what a peer is, where its name does not.
var peerNotes = map[string]string{
	"go-limiter":               "sethvargo/go-limiter v0.7.1, memorystore, Take",
	"throttled":                "throttled/throttled v2.15.0, GCRARateLimiterCtx, unbounded memstore, its limit of 10 CAS attempts lifted",
	"ulule/limiter":            "ulule/limiter v3.11.2, memory store, Get",
	"x/time/rate in xsync.Map": "golang.org/x/time/rate, Allow, one Limiter for each key; it answers yes or no only",
	"tokenBucket":              "ours",
	"fixedWindow":              "ours",
	"slidingWindow":            "ours, 10 buckets in a day",
	"slidingWindowLog":         "ours, window of 1 ms, since it keeps an entry for every admitted request of a window",
}

// race sets everyone beside the first contestant.
func race(s measure.Schedule, contestants []measure.Contestant, name, how string) []report.Row {
	r := measure.Race(s, contestants...)
	var rows []report.Row
	for i, c := range contestants[1:] {
		rows = append(rows, against(r, i+1, 0, c.Name+" / gcra, "+name).Saying(
			"%s per check against %s; %s, %s.", perOp(r, i+1), perOp(r, 0), peerNotes[c.Name], how))
	}
	return rows
}
