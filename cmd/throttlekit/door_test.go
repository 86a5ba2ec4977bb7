package main

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/vectors"
)

// Servers, connections and goroutines of a door end with its session, also when a suite cannot be opened or carried.
func TestDoorsLeaveNothingBehind(t *testing.T) { //nolint:paralleltest // goroutines of other tests would count
	before := goleak.IgnoreCurrent()
	suite := func(name string, limit float64, key string, cost float64) vectors.Suite {
		return vectors.Suite{
			Primitive: vectors.RateLimit, Name: name, Key: key,
			Strategy: vectors.Strategy{Kind: "fixedWindow", Options: vectors.Options{"limit": limit, "windowMs": 1000.0}},
			Ops:      []vectors.Op{{Cost: cost, Expect: throttlekit.Decision{Allowed: true, Limit: 5, Remaining: 4, ResetAtMillis: 1000}}},
		}
	}
	doc := vectors.NewDocument(
		suite("right", 5, "k", 1),
		suite("wrong", 6, "k", 1),
		suite("fraction", 5, "k", 0.5),
		suite("long", 5, strings.Repeat("k", service.MaxKeyBytes+1), 1),
		suite("longest", 5, strings.Repeat("k", service.MaxKeyBytes), 1),
		suite("odd", 5, "\a\"é\U0001F600", 1),
	)
	for _, name := range []string{grpcDoor, httpDoor} {
		report, err := vectors.Replay(t.Context(), doc, targets[name])
		if err != nil || report.Passed != 3 || report.Failed != 1 || report.Skipped != 2 {
			t.Errorf("%s: got %v %v", name, report, err)
		}
	}
	goleak.VerifyNone(t, before)
}

func TestReadDecision(t *testing.T) {
	t.Parallel()
	whole := `{"decision":{"allowed":false,"limit":"5","remaining":"0","resetAt":"9007199254740991","retryAfterMs":"1"}}`
	want := throttlekit.Decision{Limit: 5, ResetAtMillis: 9007199254740991, RetryAfterMillis: 1}
	if got, err := readDecision([]byte(whole)); err != nil || got != want {
		t.Errorf("got %+v %v", got, err)
	}
	for _, text := range []string{
		``, `{}`, `{"decision":null}`, `{"decision":{"limit":"5","remaining":"0","resetAt":"0","retryAfterMs":"1"}}`,
		strings.Replace(whole, `,"remaining":"0"`, "", 1), whole[:len(whole)-1],
	} {
		if d, err := readDecision([]byte(text)); err == nil {
			t.Errorf("%s: got %+v and no error", text, d)
		}
	}
}

func TestDoorRefusesWhatAPolicyFileRefuses(t *testing.T) {
	t.Parallel()
	_, err := targets[grpcDoor].Open(vectors.Suite{Strategy: vectors.Strategy{Kind: "gcra", Options: vectors.Options{"limit": 0.0}}})
	if !errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}
