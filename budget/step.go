package budget

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/throttlekit/throttlekit-go"
)

// A step is a transition on an account's record. The record has the first window in A, when it
// began, and B, what it has served; that is all of it for a meter of one window, and the layout
// that other implementations share. What else there is stands in Extra.

// rest is the Extra of a record.
type rest struct {
	periods []period // the second and later
	live    []reservation
}

// Name implements [throttlekit.Transition].
func (s *step) Name() string { return "tokenBudget" }

// Parameters implements [throttlekit.Parameterized].
func (s *step) Parameters() []string {
	var frames []byte
	for i := range s.frames {
		if i > 0 {
			frames = append(frames, ';')
		}
		frames = s.frames[i].appendText(frames)
	}
	text := func(x float64) string { return string(appendNumber(nil, x)) }
	return []string{strconv.Itoa(int(s.op)), string(frames), "r:" + s.id, text(s.amount), text(s.extra), text(s.lasts)}
}

// Apply implements [throttlekit.Transition].
func (s *step) Apply(rec throttlekit.Record, nowMillis int64, cost float64) (throttlekit.Record, throttlekit.Decision, int64) {
	now := float64(nowMillis)
	with := *s
	with.cost = cost
	s = &with
	a := accountOf(rec, len(s.frames))
	if at, known := a.place(s.frames, now); !known {
		return rec, outside(at), 0
	}
	at := a.find(s, 0, now)
	var d throttlekit.Decision
	a.decide(s, now, at, &d)
	if !d.Allowed || s.looks() {
		return rec, d, 0
	}
	if at >= 0 {
		a.live[at].resize(len(s.frames))
	}
	a.commit(s, now, at)
	return a.record(), d, max(1, ceil(a.expires()-now))
}

// accountOf is a copy of what a record holds, for a number of windows, but for what reservations
// have charged, which the copies share.
func accountOf(rec throttlekit.Record, windows int) *account {
	a := newAccount(windows)
	a.periods[0] = period{start: rec.A, served: rec.B}
	if more, ok := rec.Extra.(*rest); ok {
		copy(a.periods[1:], more.periods)
		a.live = slices.Clone(more.live)
	}
	return &a
}

func (a *account) record() throttlekit.Record {
	rec := throttlekit.Record{A: a.periods[0].start, B: a.periods[0].served}
	if len(a.periods) > 1 || len(a.live) > 0 {
		rec.Extra = &rest{periods: a.periods[1:], live: a.live}
	}
	return rec
}

// recordText is the text form of a record.
type recordText struct {
	Start  *float64          `json:"w"`
	Served *float64          `json:"s"`
	More   [][2]float64      `json:"more,omitempty"`
	Live   []reservationText `json:"live,omitempty"`
}

type reservationText struct {
	ID        string       `json:"id"`
	Remainder float64      `json:"remainder"`
	Expires   float64      `json:"expires"`
	Total     float64      `json:"total"`
	Charged   [][2]float64 `json:"charged"`
}

// Encode implements [throttlekit.Transition].
func (s *step) Encode(rec throttlekit.Record) ([]byte, error) {
	text := recordText{Start: &rec.A, Served: &rec.B}
	if more, ok := rec.Extra.(*rest); ok {
		text.More = pairs(more.periods)
		for _, r := range more.live {
			text.Live = append(text.Live, reservationText{r.id, r.remainder, r.expires, r.total, pairs(r.charged)})
		}
	}
	return json.Marshal(text)
}

func pairs(periods []period) (pairs [][2]float64) {
	for _, p := range periods {
		pairs = append(pairs, [2]float64{p.start, p.served})
	}
	return pairs
}

// Decode implements [throttlekit.Transition].
func (s *step) Decode(held []byte) (throttlekit.Record, error) {
	var text recordText
	d := json.NewDecoder(bytes.NewReader(held))
	d.DisallowUnknownFields()
	err := d.Decode(&text)
	if err == nil && (d.More() || text.Start == nil || text.Served == nil) {
		err = errors.New("it is not of the form {\"w\":start,\"s\":served}")
	}
	if err == nil {
		err = text.check()
	}
	if err != nil {
		return throttlekit.Record{}, fmt.Errorf("budget: corrupt record: %w", err)
	}
	rec := throttlekit.Record{A: *text.Start, B: *text.Served}
	if len(text.More) == 0 && len(text.Live) == 0 {
		return rec, nil
	}
	more := &rest{periods: periods(text.More)}
	for _, r := range text.Live {
		more.live = append(more.live, reservation{
			id: r.ID, remainder: r.Remainder, expires: r.Expires, total: r.Total, charged: periods(r.Charged),
		})
	}
	rec.Extra = more
	return rec, nil
}

// check makes sure that times and tokens are numbers that can be counted with.
func (t *recordText) check() error {
	numbers := []float64{*t.Start, *t.Served}
	for _, p := range t.More {
		numbers = append(numbers, p[0], p[1])
	}
	for _, r := range t.Live {
		numbers = append(numbers, r.Remainder, r.Expires, r.Total)
		for _, p := range r.Charged {
			numbers = append(numbers, p[0], p[1])
		}
	}
	for _, x := range numbers {
		if x < -throttlekit.MaxSafe || x > throttlekit.MaxSafe {
			return fmt.Errorf("the number %v is out of range", x)
		}
	}
	if *t.Served < 0 {
		return errors.New("fewer than no tokens were served")
	}
	return nil
}

func periods(pairs [][2]float64) (periods []period) {
	for _, p := range pairs {
		periods = append(periods, period{start: p[0], served: p[1]})
	}
	return periods
}
