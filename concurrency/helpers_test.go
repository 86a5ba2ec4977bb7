package concurrency

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails if a test leaves a goroutine behind that waits for a permit or sends beats.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && leaked() {
		code = 1
	}
	os.Exit(code)
}

func leaked() bool {
	text := make([]byte, 1<<20)
	for range 100 {
		text = text[:runtime.Stack(text[:cap(text)], true)]
		if !strings.Contains(string(text), "concurrency.(*Guard)") && !strings.Contains(string(text), "concurrency.(*FleetGuard)") {
			return false
		}
		<-time.After(20 * time.Millisecond)
	}
	_, _ = os.Stderr.WriteString("goroutines were left behind:\n" + string(text))
	return true
}

// watch is a clock that the test moves. It is not safe for concurrent use.
type watch struct{ now time.Duration }

func (w *watch) elapsed() time.Duration { return w.now }

func newTestGuard(tb testing.TB, config Config) *Guard {
	tb.Helper()
	g, err := NewGuard(config)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

func newTestLaw(tb testing.TB, config Config) *law {
	tb.Helper()
	config, err := config.complete()
	if err != nil {
		tb.Fatal(err)
	}
	l := newLaw(config, 0)
	return &l
}
