package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// Transitions without a script run here, in the client, on the record and the time that one
// script has read; another script writes the outcome if the record is still the same.

var errChanged = errors.New("other processes kept changing the record")

// given is a decision that was made here.
type given struct {
	decision  throttlekit.Decision
	held      string // the text it was made on, behind a "=", or empty for none
	following string // the text to write, likewise
	lasts     string // for how many milliseconds; 0 for not at all
}

// together appends the values that the script over several keys takes for one of them.
func (g *given) together(args []string) []string {
	allowed := "0"
	if g.decision.Allowed {
		allowed = "1"
	}
	return append(args, kindGiven, "0", allowed, g.held, g.following, g.lasts)
}

// kindGiven is the type of a decision made here in a script over several keys.
const kindGiven = "8"

// decide runs a transition on what a key holds.
func (s *Store) decide(t throttlekit.Transition, held string, nowMillis int64, cost float64) (*given, error) {
	rec, err := decodeText(t, nil, held)
	if err != nil {
		return nil, err
	}
	next, d, ttl := t.Apply(rec, nowMillis, cost)
	g := &given{decision: d, held: held, lasts: "0"}
	if ttl <= 0 {
		return g, nil
	}
	text, err := t.Encode(next)
	if err != nil {
		return nil, fmt.Errorf("the %s transition could not encode its record: %w", t.Name(), err)
	}
	ttl = min(throttlekit.MaxSafe, max(ttl, s.config.TTLFloor.Milliseconds()))
	g.following, g.lasts = "="+string(text), strconv.FormatInt(ttl, 10)
	return g, nil
}

// applyHere runs a transition without a script on one key.
func (s *Store) applyHere(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	unlock, err := s.stripes.lock(ctx, key)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	defer unlock()
	for attempt := range s.config.MaxRetries + 1 {
		if err := pause(ctx, attempt); err != nil {
			return throttlekit.Decision{}, err
		}
		texts, now, err := s.read(ctx, stringLayout, key)
		if err != nil {
			return throttlekit.Decision{}, err
		}
		g, err := s.decide(t, texts[0], now, cost)
		if err != nil {
			return throttlekit.Decision{}, err
		}
		if g.lasts == "0" {
			return g.decision, nil
		}
		reply, err := s.eval(ctx, Call{Script: scriptSwap, Key: key, Args: []string{g.held, g.following, g.lasts}})
		switch {
		case err != nil:
			return throttlekit.Decision{}, err
		case reply.Count != 1:
			return throttlekit.Decision{}, errReply
		case reply.Few[0] == 1:
			return g.decision, nil
		}
	}
	return throttlekit.Decision{}, s.contention()
}

// togetherHere runs an atomic batch in which some transitions have no script. Those are decided
// here at the server's time, and the script decides the others at the same instant.
func (s *Store) togetherHere(ctx context.Context, b *atomicBatch) ([]throttlekit.Decision, error) {
	keys := make([]string, len(b.custom))
	for i, op := range b.custom {
		keys[i] = b.keys[op]
	}
	unlock, err := s.stripes.lock(ctx, keys...)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for attempt := range s.config.MaxRetries + 1 {
		if err := pause(ctx, attempt); err != nil {
			return nil, err
		}
		texts, now, err := s.read(ctx, stringLayout, keys[0], keys[1:]...)
		if err != nil {
			return nil, err
		}
		decided := make(map[int]*given, len(b.custom))
		for i, op := range b.custom {
			if decided[op], err = s.decide(b.ops[op].Transition, texts[i], now, b.ops[op].Cost); err != nil {
				return nil, err
			}
		}
		decisions, changed, err := s.settle(ctx, b, instant(now), decided)
		if err != nil || !changed {
			return decisions, err
		}
	}
	return nil, s.contention()
}

func (s *Store) contention() error {
	return fmt.Errorf("contention: %w in %d attempts", errChanged, s.config.MaxRetries+1)
}

// pause waits before an attempt that follows a conflict: at random, for twice as long on
// average each time, so that processes that met once do not keep meeting.
func pause(ctx context.Context, attempt int) error {
	const (
		shortest = 200 * time.Microsecond
		doubling = 6 // times, which makes 12.8 ms the longest pause
	)
	if attempt == 0 {
		return nil
	}
	timer := time.NewTimer(rand.N(shortest << min(attempt-1, doubling))) //nolint:gosec // jitter is no secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
