package throttlekit

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestSystemClockFollowsTheWallClock(t *testing.T) {
	t.Parallel()
	for range 1000 {
		before := time.Now().UnixMilli()
		got := SystemClock{}.NowMillis()
		after := time.Now().UnixMilli()
		if got < before-1 || got > after+1 {
			t.Fatalf("%d is not between %d and %d", got, before, after)
		}
	}
}

// In a bubble time stands at another date and jumps: the clock must not keep its anchor.
func TestSystemClockFollowsABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 5 {
			if got, want := (SystemClock{}).NowMillis(), time.Now().UnixMilli(); got != want {
				t.Errorf("%d, want %d", got, want)
			}
			<-time.After(400 * time.Millisecond)
		}
	})
	if got, want := (SystemClock{}).NowMillis(), time.Now().UnixMilli(); got < want-1000 || got > want+1 {
		t.Errorf("%d after the bubble, want %d", got, want)
	}
}

func TestManualClock(t *testing.T) {
	t.Parallel()
	clock := NewManualClock(100)
	clock.Advance(1500 * time.Microsecond)
	clock.Advance(-time.Hour)
	if got := clock.NowMillis(); got != 101 {
		t.Error(got)
	}
	clock.Set(7)
	if got := clock.NowMillis(); got != 7 {
		t.Error(got)
	}
}

func TestCoarseClockKeepsUpAndStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := NewCoarseClock()
		<-time.After(50 * time.Millisecond)
		if got, want := clock.NowMillis(), time.Now().UnixMilli(); got < want-2 || got > want {
			t.Errorf("running clock %d, want about %d", got, want)
		}
		for range 2 {
			if err := clock.Close(); err != nil {
				t.Error(err)
			}
		}
		<-time.After(time.Hour)
		if got, want := clock.NowMillis(), time.Now().UnixMilli(); got != want {
			t.Errorf("closed clock %d, want %d", got, want)
		}
	})
}
