package measure

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Stalled is how long the threads of this process have waited, ready to run, for a CPU that something else was using.
// Linux counts that; elsewhere it is 0, as on a machine with nothing else to do.
func Stalled() (total time.Duration) {
	const tasks = "/proc/self/task"
	dir, err := os.Open(tasks)
	if err != nil {
		return 0
	}
	defer func() { _ = dir.Close() }()
	threads, err := dir.Readdirnames(-1)
	if err != nil {
		return 0
	}
	for _, thread := range threads {
		total += stallOf(filepath.Join(tasks, thread, "schedstat"))
	}
	return total
}

// stallOf reads the second of the three numbers in a schedstat file. A thread may have ended meanwhile.
func stallOf(path string) time.Duration {
	text, err := os.ReadFile(path) //nolint:gosec // a path under /proc
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	nanos, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(nanos)
}
