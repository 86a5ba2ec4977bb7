package report

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine is where the figures come from.
type Machine struct {
	CPU        string `json:"cpu,omitempty"`
	CPUs       int    `json:"cpus"`
	GOMAXPROCS int    `json:"gomaxprocs"`
	Go         string `json:"go"`
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	// Clock is the kernel's clock source. Reading the time is most of a check, and costs ten times as much with some.
	Clock string `json:"clock,omitempty"`
	// Load is how many threads wanted to run, on average of the last 1, 5 and 15 minutes. Beyond the number of CPUs the
	// spread of the figures grows.
	Load string `json:"load,omitempty"`
}

// ThisMachine looks around. What the system does not tell stays empty.
func ThisMachine() Machine {
	return Machine{
		CPU:        cpuModel(),
		CPUs:       runtime.NumCPU(),
		GOMAXPROCS: runtime.GOMAXPROCS(0),
		Go:         runtime.Version(),
		OS:         runtime.GOOS,
		Arch:       runtime.GOARCH,
		Clock:      read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
		Load:       strings.Join(firstFields(read("/proc/loadavg"), 3), " "),
	}
}

// String implements [fmt.Stringer].
func (m Machine) String() string {
	facts := []string{fmt.Sprintf("%s %s/%s", m.Go, m.OS, m.Arch), fmt.Sprintf("%d CPUs, GOMAXPROCS %d", m.CPUs, m.GOMAXPROCS)}
	for _, fact := range []struct{ name, value string }{{"", m.CPU}, {"clock source ", m.Clock}, {"load ", m.Load}} {
		if fact.value != "" {
			facts = append(facts, fact.name+fact.value)
		}
	}
	return strings.Join(facts, ", ")
}

func read(path string) string {
	text, err := os.ReadFile(path) //nolint:gosec // a path under /proc or /sys
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func cpuModel() string {
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstFields(text string, n int) []string {
	fields := strings.Fields(text)
	return fields[:min(n, len(fields))]
}
