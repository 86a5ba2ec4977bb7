package main

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"time"
)

// stream is one answer that is under way.
type stream struct {
	at       time.Duration // when its next chunk comes
	seq      int           // which of two that come at once is first
	size     int           // tokens that it will have, which no policy may look at
	produced int
	pace     time.Duration // for a token
}

// tally is what happened in one window.
type tally struct {
	produced  int // tokens that came in and were passed on
	completed int // tokens of answers that ended in it whole
	last      int // tokens of the last chunk that was passed on
	cuts      int
	peak      int // the most streams under way at once
}

// world is a discrete-event simulation. Clients that have no stream under way all wait to
// begin one, so there is always a backlog.
type world struct {
	load    workload
	policy  policy
	clients int
	span    time.Duration
	sizes   *rand.Rand
	paces   *rand.Rand

	now     time.Duration
	seq     int
	streams agenda
	windows []tally
}

// agenda is the streams under way by the times of their next chunks.
type agenda []*stream

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(*stream)) } //nolint:forcetypeassert,errcheck // heap.Push is only called below
func (a *agenda) Pop() any     { old := *a; last := old[len(old)-1]; *a = old[:len(old)-1]; return last }

func newWorld(load workload, clients, windows int, seed uint64) *world {
	return &world{
		load: load, clients: clients, span: time.Duration(windows) * width, windows: make([]tally, windows),
		sizes: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // a simulation has to repeat
		paces: rand.New(rand.NewPCG(seed, 2)), //nolint:gosec // a simulation has to repeat
	}
}

// NowMillis is the policies' clock.
func (w *world) NowMillis() int64 { return w.now.Milliseconds() }

func (w *world) window() int { return int(w.now / width) }

func (w *world) tally() *tally { return &w.windows[w.window()] }

// Elapsed is their monotonic clock.
func (w *world) Elapsed() time.Duration { return w.now }

// run goes through all windows and returns what happened in each.
func (w *world) run(ctx context.Context, c contender) ([]tally, error) {
	p, err := c.begin(w)
	if err != nil {
		return nil, err
	}
	w.policy = p
	for start := time.Duration(0); start < w.span; start += width {
		w.now = start
		w.tally().peak = len(w.streams)
		if err := w.begin(ctx); err != nil {
			return nil, err
		}
		for len(w.streams) > 0 && w.streams[0].at < start+width {
			w.now = w.streams[0].at
			if err := w.step(ctx); err != nil {
				return nil, err
			}
		}
	}
	return w.windows, nil
}

// begin starts streams until the policy or the number of clients says no.
func (w *world) begin(ctx context.Context) error {
	for len(w.streams) < w.clients {
		s := &stream{}
		if ok, err := w.policy.admit(ctx, s); err != nil || !ok {
			return err
		}
		w.seq++
		s.seq, s.size = w.seq, w.load.size(w.sizes, float64(w.now)/float64(w.span))
		s.pace = time.Duration((0.75 + w.paces.Float64()/2) * float64(pace))
		s.at = w.now + time.Duration((1+w.paces.Float64())*float64(soonest))
		heap.Push(&w.streams, s)
		w.tally().produced += prompt
		w.tally().peak = max(w.tally().peak, len(w.streams))
	}
	return nil
}

// step is the next chunk.
func (w *world) step(ctx context.Context) error {
	s, now := w.streams[0], w.tally()
	tokens := min(1+w.paces.IntN(chunk), s.size-s.produced)
	passed, err := w.policy.debit(ctx, s, tokens)
	if err != nil {
		return err
	}
	if passed {
		s.produced += tokens
		now.produced += tokens
		now.last = tokens
	}
	if passed && s.produced < s.size {
		s.at += time.Duration(tokens) * s.pace
		heap.Fix(&w.streams, 0)
		return nil
	}
	heap.Pop(&w.streams)
	if passed {
		now.completed += prompt + s.size
	} else {
		now.cuts++
	}
	if err := w.policy.end(ctx, s, !passed); err != nil {
		return err
	}
	return w.begin(ctx)
}
