package throttlekit

import (
	"math"
	"time"
)

// FixedWindow admits Limit units in each window of the given width; windows are
// aligned to the epoch. It is the cheapest to understand and the coarsest: up to
// twice the limit can pass in a short time around a window's edge. Where that
// matters, take [GCRA] or [SlidingWindow]. Specification: §2.3. Beyond it, windows
// only roll forward: a clock that steps back stays in the window it had reached.
type FixedWindow struct {
	// Limit is how many units one window admits; positive.
	Limit float64
	// Window is the width of a window; positive.
	Window time.Duration
}

// Rule implements [Strategy].
func (s FixedWindow) Rule() (Rule, error) {
	var c checks
	c.positive("limit", s.Limit)
	c.duration("window", s.Window)
	if len(c) > 0 {
		return nil, c.err()
	}
	width := toMillis(s.Window)
	return &windowed{
		name: "fixedWindow", strategy: s, limit: s.Limit, reported: whole(s.Limit),
		start: func(nowMillis int64) float64 { return float64(math.Floor(float64(nowMillis)/width) * width) },
		end:   func(start float64) float64 { return start + width },
	}, nil
}

// windowed counts units in windows that follow each other without gap. It serves
// fixed windows and quotas. A record's A is the start of its window, B the count.
type windowed struct {
	name     string
	strategy Strategy
	limit    float64
	reported int64
	start    func(nowMillis int64) float64 // start of the window that contains now
	end      func(start float64) float64   // end of the window that starts at start
}

func (w *windowed) Name() string       { return w.name }
func (w *windowed) Strategy() Strategy { return w.strategy }
func (w *windowed) Limit() int64       { return w.reported }

func (w *windowed) Encode(rec Record) ([]byte, error) { return encodePair("start", "count", rec) }

func (w *windowed) Decode(text []byte) (Record, error) {
	return decodePair(w.name, "start", "count", text)
}

// window is the current window and what has been counted in it.
func (w *windowed) window(rec Record, nowMillis int64) (start, reset, count float64) {
	start = w.start(nowMillis)
	if rec.B > 0 && rec.A >= start {
		start, count = rec.A, rec.B
	}
	return start, w.end(start), count
}

func (w *windowed) Apply(rec Record, nowMillis int64, cost float64) (Record, Decision, int64) {
	start, reset, count := w.window(rec, nowMillis)
	until := ceil(reset - float64(nowMillis))
	if count+cost > w.limit {
		return rec, deny(w.reported, floor0(w.limit-count), ceil(reset), until), 0
	}
	count += cost
	return Record{A: start, B: count}, allow(w.reported, floor0(w.limit-count), ceil(reset)), max(1, until)
}

func (w *windowed) Peek(rec Record, nowMillis int64) Decision {
	_, reset, count := w.window(rec, nowMillis)
	if count+1 > w.limit {
		return deny(w.reported, floor0(w.limit-count), ceil(reset), ceil(reset-float64(nowMillis)))
	}
	return allow(w.reported, floor0(w.limit-count), ceil(reset))
}

func (w *windowed) Forecast(rec Record, nowMillis int64, cost float64) Forecast {
	_, reset, count := w.window(rec, nowMillis)
	return Forecast{
		SpendableNow:          floor(max(0, w.limit-count) / cost),
		NextReplenishAtMillis: ceil(reset),
		FullAtMillis:          ceil(reset),
	}
}
