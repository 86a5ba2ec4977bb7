package service

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// logEvery is how often the same trouble is logged at most.
const logEvery = 10 * time.Second

// FailModeCount is how many decisions a fail mode has made instead of a store since the
// service began. Each key of a CheckMany counts.
func (s *Service) FailModeCount() int64 { return s.standIns.Load() }

// standIn makes the decision that a policy could not make for n keys because of err. It
// returns err itself if that is not the store's fault.
func (s *Service) standIn(ctx context.Context, h *held, err error, n int) (throttlekit.Decision, error) {
	if !outage(ctx, err) {
		return throttlekit.Decision{}, err
	}
	s.standIns.Add(int64(n))
	h.failing.Store(true)
	if suppressed, pass := h.outages.pass(s.now().Sub(s.born)); pass {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "the store cannot decide; the fail mode does",
			slog.String("policy", h.info.Name), slog.String("failMode", string(h.mode)),
			slog.Int64("suppressed", suppressed), slog.Any("error", err))
	}
	d := throttlekit.Decision{Limit: h.info.Limit}
	if h.mode == FailOpen {
		d.Allowed, d.Remaining = true, h.info.Limit
	}
	return d, nil
}

// decided takes note that the store has decided, and logs that it does so again. Who asks often learns
// it once in logEvery.
func (s *Service) decided(ctx context.Context, h *held) {
	if !h.failing.Load() || !h.failing.CompareAndSwap(true, false) {
		return
	}
	if _, pass := h.recoveries.pass(s.now().Sub(s.born)); pass {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "the store decides again", slog.String("policy", h.info.Name))
	}
}

// tellOutage logs an outage that the policy bears by itself.
func (s *Service) tellOutage(h *held, err error) {
	if suppressed, pass := h.outages.pass(s.now().Sub(s.born)); pass {
		s.logger.LogAttrs(context.Background(), slog.LevelWarn, "the store does not serve the policy, which goes on with what it holds",
			slog.String("policy", h.info.Name), slog.Int64("suppressed", suppressed), slog.Any("error", err))
	}
}

// outage reports whether err is the store's fault. A wrong request must never be let
// through by a fail mode, nor counted against the store. A caller who has left gets his
// own error; one whose deadline passed while the store was silent is answered.
func outage(ctx context.Context, err error) bool {
	if !errors.Is(err, throttlekit.ErrStoreUnavailable) || errors.Is(ctx.Err(), context.Canceled) {
		return false
	}
	for _, other := range []error{
		throttlekit.ErrInvalid, throttlekit.ErrUnsupported, throttlekit.ErrPolicyNotFound, throttlekit.ErrClosed,
	} {
		if errors.Is(err, other) {
			return false
		}
	}
	return true
}

// gate lets one message through in each logEvery and counts the others. Its zero value is open.
type gate struct {
	next       atomic.Int64 // when it opens again, in nanoseconds since the service began
	suppressed atomic.Int64
}

// pass reports whether a message may pass at this age of the service, and how many were
// held back since the last one that did.
func (g *gate) pass(age time.Duration) (suppressed int64, pass bool) {
	next := g.next.Load()
	if int64(age) < next || !g.next.CompareAndSwap(next, int64(age+logEvery)) {
		g.suppressed.Add(1)
		return 0, false
	}
	return g.suppressed.Swap(0), true
}
