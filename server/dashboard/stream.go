package dashboard

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/throttlekit/throttlekit-go/server/internal/lasting"
	"github.com/throttlekit/throttlekit-go/server/monitor"
)

const (
	// gatherFor is how long denials are gathered before they are sent, and maxGathered how many at most.
	gatherFor   = 200 * time.Millisecond
	maxGathered = 20
	// writeTimeout is how long one event may take to be taken by a page.
	writeTimeout = 10 * time.Second
)

// denials is what one event tells of. Skipped are those that happened as well, as far as it is known.
type denials struct {
	Events  []monitor.Denial `json:"events"`
	Skipped int64            `json:"skipped"`
}

// gathered are denials that have not been sent.
type gathered struct {
	denials

	dropped int64 // by the subscription, so far
}

// take adds a denial, in place of the oldest one if there are too many.
func (g *gathered) take(d monitor.Denial) {
	if len(g.Events) == maxGathered {
		copy(g.Events, g.Events[1:])
		g.Events = g.Events[:maxGathered-1]
		g.Skipped++
	}
	g.Events = append(g.Events, d)
}

// hand empties it.
func (g *gathered) hand(dropped int64) denials {
	d := g.denials
	d.Skipped += dropped - g.dropped
	g.denials, g.dropped = denials{}, dropped
	return d
}

// events streams to one page until it goes away, its session ends or the dashboard is closed.
func (d *Dashboard) events(w http.ResponseWriter, r *http.Request) {
	select {
	case <-d.closed:
		refuse(w, "The server is shutting down.")
		return
	default:
	}
	if r.ContentLength != 0 { // it would be waited for, without a deadline
		http.Error(w, "A request for events has no body.", http.StatusBadRequest)
		return
	}
	select {
	case d.streams <- struct{}{}:
	default:
		refuse(w, fmt.Sprintf("%d pages watch already, which is as many as may.", d.config.MaxStreams))
		return
	}
	defer func() { <-d.streams }()
	subscription, err := d.config.Source.Watch("")
	if err != nil {
		refuse(w, "Too many readers watch already.")
		return
	}
	defer subscription.Close()

	answer := lasting.New(w, writeTimeout, d.closed)
	defer answer.Close()
	answer.Last()
	s := stream{answer}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy that gathers would hold events back
	if s.begin(d, r) == nil {
		// An error here says that the page went away, or that no snapshot could be made; it comes again by itself.
		_ = s.run(d, r, subscription)
	}
}

func refuse(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "5")
	http.Error(w, why, http.StatusServiceUnavailable)
}

// stream writes events to one page.
type stream struct{ *lasting.Writer }

// begin tells where things stand. The snapshot is made after the subscription, so that no denial falls between the two.
func (s stream) begin(d *Dashboard, r *http.Request) error {
	if err := s.json("hello", struct {
		IntervalMs int64 `json:"intervalMs"`
		Login      bool  `json:"login"`
	}{d.config.Interval.Milliseconds(), d.secret != nil}); err != nil {
		return err
	}
	first := d.fresh(r.Context())
	live, err := document(first)
	if err != nil {
		return err
	}
	if err := s.send("snapshot", live); err != nil {
		return err
	}
	return s.json("recent", denials{Events: first.RecentDenials})
}

func (s stream) run(d *Dashboard, r *http.Request, subscription *monitor.Subscription) error {
	tick := time.NewTicker(d.config.Interval)
	defer tick.Stop()
	var waiting gathered
	var due <-chan time.Time // nil while nothing waits
	for {
		select {
		case <-r.Context().Done():
			return r.Context().Err()
		case <-d.closed:
			return nil
		case denial := <-subscription.Events():
			waiting.take(denial)
			if due == nil {
				due = time.After(gatherFor)
			}
		case <-due:
			due = nil
			if err := s.json("denials", waiting.hand(subscription.Dropped())); err != nil {
				return err
			}
		case <-tick.C:
			if !d.loggedIn(r) {
				return nil
			}
			_, live, err := d.look(r.Context())
			if err != nil {
				return err
			}
			if err := s.send("snapshot", live); err != nil {
				return err
			}
		}
	}
}

func (s stream) json(event string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.send(event, data)
}

// send writes one event. JSON has no line breaks, so it is one line of data.
func (s stream) send(event string, data []byte) error {
	if _, err := fmt.Fprintf(s, "event: %s\ndata: %s\n\n", event, data); err != nil {
		return err
	}
	return s.FlushError()
}
