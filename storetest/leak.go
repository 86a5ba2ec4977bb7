package storetest

import (
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"
)

// goroutines are the stacks of all goroutines by what identifies them, "goroutine 12".
func goroutines() map[string]string {
	text := make([]byte, 1<<16)
	for {
		n := runtime.Stack(text, true)
		if n < len(text) {
			text = text[:n]
			break
		}
		text = make([]byte, 2*len(text))
	}
	stacks := make(map[string]string)
	for stack := range strings.SplitSeq(string(text), "\n\n") {
		if id, _, ok := strings.Cut(stack, " ["); ok {
			stacks[id] = stack
		}
	}
	return stacks
}

// leaks are the stacks of goroutines that were not there before and that do not end
// while it looks so many times. Those of the testing framework itself do not count.
func leaks(before map[string]string, tries int) []string {
	const pause = 20 * time.Millisecond
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	var left []string
	for range tries {
		now := goroutines()
		left = left[:0]
		for _, id := range slices.Sorted(maps.Keys(now)) {
			stack := now[id]
			if _, old := before[id]; !old && !strings.Contains(stack, "testing.(*T).Run") && !strings.Contains(stack, "testing.runTests") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return nil
		}
		<-ticker.C // a goroutine that ends tells nobody
	}
	return left
}
