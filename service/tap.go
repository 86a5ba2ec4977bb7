package service

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// Tap is told about decisions. Decided runs in the goroutine of the request, before the
// answer goes out: it must take constant time, must not block, and may run in many
// goroutines at once. If it panics, the answer goes out all the same.
type Tap interface {
	Decided(e Event)
}

// PolicyTap is a Tap that has a part for each policy, and so need not find out whose each
// decision is.
type PolicyTap interface {
	Tap
	// ForPolicy is what is told the decisions of one policy instead. It is called by New.
	ForPolicy(policy Info) Tap
}

// CheckTap is a Tap that takes the most frequent event, a check or debit that the store decided,
// by its parts, which is cheaper: Decided is not called for it then.
type CheckTap interface {
	Tap
	// Checked is Decided for an Event with these parts. An elapsed time of 0 was not measured.
	Checked(key string, cost float64, d throttlekit.Decision, atMillis int64, elapsed time.Duration)
}

// ContextTap is a Tap that is told with the context of the request, such as to find its trace there.
// DecidedIn is called in place of Decided, and of Checked.
type ContextTap interface {
	Tap
	DecidedIn(ctx context.Context, e Event)
}

// FenceTap is a Tap that is also told when a policy stops admitting because this process may
// have lost its share of a fleet's ceiling. Fenced follows the rules of Decided.
type FenceTap interface {
	Tap
	Fenced(policy Info, at time.Time)
}

// Event is one decision. A CheckMany makes one for each key, and a Reserve one for its domain.
type Event struct {
	// Policy describes the policy that decided.
	Policy Info
	// Key is the key as the caller gave it.
	Key string
	// Cost is what was asked for, of a Debit its tokens, or of a lease that was granted, what it lends.
	Cost float64
	// Lease says that Cost units were lent to a holder, who spends them without further
	// events; if the decision denies, that as many were wanted and none was left. The
	// decision of a lease that was granted has in Remaining what the holder may spend.
	Lease bool
	// Admit says that this was an Admit, whose Axis says what denied it.
	Admit bool
	// Axis is what denied an Admit: "rate", "concurrency" or "cost", or "policy" if it was not
	// worth its price. Empty otherwise.
	Axis string
	// Decision is the answer.
	Decision throttlekit.Decision
	// FailMode is the fail mode that decided because the store could not, or empty.
	FailMode FailMode
	// At is when the answer was there.
	At time.Time
	// Elapsed is how long it took; of a CheckMany, each key has an equal share. 0 means that
	// it was not timed, see [Config.Clock].
	Elapsed time.Duration
}

// tell tells the taps of a policy. The event is copied only where it leaves the service.
func (s *Service) tell(ctx context.Context, h *held, e *Event) {
	for i := range h.taps {
		s.tellOne(ctx, &h.taps[i], e)
	}
}

// heldTap is a tap of a policy with what New has found out about it.
type heldTap struct {
	Tap

	check CheckTap   // nil for none
	in    ContextTap // nil for none
}

func newHeldTap(tap Tap, policy Info) heldTap {
	if t, ok := tap.(PolicyTap); ok {
		tap = t.ForPolicy(policy)
	}
	h := heldTap{Tap: tap}
	if h.in, _ = tap.(ContextTap); h.in == nil {
		h.check, _ = tap.(CheckTap)
	}
	return h
}

// tellCheck tells the taps of a check that the store decided.
func (s *Service) tellCheck(
	ctx context.Context, h *held, key string, cost float64, d throttlekit.Decision, atMillis int64, elapsed time.Duration,
) {
	for i := range h.taps {
		if t := &h.taps[i]; t.check != nil {
			s.tellOneCheck(ctx, t.check, key, cost, d, atMillis, elapsed)
		} else {
			s.tellOne(ctx, t, &Event{
				Policy: h.info, Key: key, Cost: cost, Decision: d, At: time.UnixMilli(atMillis), Elapsed: elapsed,
			})
		}
	}
}

// tellOneCheck tells one tap.
func (s *Service) tellOneCheck(
	ctx context.Context, tap CheckTap, key string, cost float64, d throttlekit.Decision, atMillis int64, elapsed time.Duration,
) {
	defer s.recoverTap(ctx, tap)
	tap.Checked(key, cost, d, atMillis, elapsed)
}

// tellFence tells the taps that want to know.
func (s *Service) tellFence(policy Info) {
	at := s.now()
	s.logger.LogAttrs(context.Background(), slog.LevelWarn, "a policy is fenced: its share of the fleet's ceiling may have been given away",
		slog.String("policy", policy.Name))
	for _, tap := range s.taps {
		if f, ok := tap.(FenceTap); ok {
			func() {
				defer s.recoverTap(context.Background(), tap)
				f.Fenced(policy, at)
			}()
		}
	}
}

// tellOne tells one tap.
func (s *Service) tellOne(ctx context.Context, tap *heldTap, e *Event) {
	defer s.recoverTap(ctx, tap.Tap)
	if tap.in != nil {
		tap.in.DecidedIn(ctx, *e)
	} else {
		tap.Decided(*e)
	}
}

// recoverTap swallows a panic of a tap. The request has been charged: if the panic went
// on, the caller would see a failure, try again and pay twice, and a fault in something
// that only watches would stop the service.
func (s *Service) recoverTap(ctx context.Context, tap Tap) {
	if r := recover(); r != nil {
		if suppressed, pass := s.panics.pass(s.now().Sub(s.born)); pass {
			s.logger.LogAttrs(ctx, slog.LevelError, "a tap panicked; the decision stands",
				slog.String("tap", fmt.Sprintf("%T", tap)), slog.String("panic", fmt.Sprint(r)),
				slog.Int64("suppressed", suppressed))
		}
	}
}
