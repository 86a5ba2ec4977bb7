package engine

import (
	"crypto/fips140"
	"crypto/sha1" //nolint:gosec // Redis names scripts by their SHA-1; nothing is secured by it
	"embed"
	"encoding/hex"
	"fmt"
	"strings"
)

//go:embed lua/*.lua
var sources embed.FS

// Script is a Lua program and the name under which Redis keeps it.
type Script struct {
	Name string
	Text string
	SHA1 string
}

// kind is a transition that has a script.
type kind struct {
	*Script

	id     string // its type in a script over several keys
	layout layout
	// cost is the place of the cost in ARGV, counted from 1; the parameters stand around it in their order.
	cost int
}

// layout is the Redis type of a record.
type layout string

const (
	stringLayout layout = "string"
	hashLayout   layout = "hash"
	zsetLayout   layout = "zset"
)

// strategy is the source of a script: a body, what it calls, and its parameters.
type strategy struct {
	name       string
	file       string
	parameters string
	needs      []string
}

var (
	gcra             = strategy{"gcra", "gcra", "period, limit, burst", nil}
	tokenBucket      = strategy{"token_bucket", "tokenbucket", "capacity, refill", []string{"helpers"}}
	fixedWindow      = strategy{"fixed_window", "fixedwindow", "limit, width", []string{"helpers", "window"}}
	slidingWindow    = strategy{"sliding_window", "slidingwindow", "span, limit, buckets", []string{"helpers"}}
	slidingWindowLog = strategy{"sliding_window_log", "slidingwindowlog", "span, limit", []string{"helpers"}}
	leakyBucket      = strategy{"leaky_bucket", "leakybucket", "rate, longest", []string{"helpers"}}
	quota            = strategy{"quota", "quota", "limit, mode, period, anchor, offset, week_start", []string{"helpers", "window", "month"}}
	decidedHere      = strategy{"given", "given", "verdict, held, following, lasts", []string{"helpers"}}
)

// The places of the cost are those of the specification's §2 and §3.
var (
	kindGCRA             = &kind{gcra.alone(5), "1", stringLayout, 5}
	kindTokenBucket      = &kind{tokenBucket.alone(4), "2", hashLayout, 4}
	kindFixedWindow      = &kind{fixedWindow.alone(4), "3", hashLayout, 4}
	kindSlidingWindow    = &kind{slidingWindow.alone(4), "4", hashLayout, 4}
	kindSlidingWindowLog = &kind{slidingWindowLog.alone(4), "5", zsetLayout, 4}
	kindLeakyBucket      = &kind{leakyBucket.alone(4), "6", stringLayout, 4}
	kindQuota            = &kind{quota.alone(3), "7", hashLayout, 3}

	scriptTogether = together(gcra, tokenBucket, fixedWindow, slidingWindow, slidingWindowLog, leakyBucket, quota, decidedHere)
	scriptLoad     = newScript("load", source("load"))
	scriptSwap     = newScript("swap", source("swap"))
)

const (
	results     = "allowed, ceiling, left, reset, wait"
	noResults   = "local " + results + " = 0, 0, 0, 0, 0\n"
	endFunction = "return " + results + "\nend\n"
)

// alone is the script of one strategy. ARGV is the time, then cost and parameters, then the shortest time to live.
func (s strategy) alone(cost int) *Script {
	names := strings.Split(s.parameters, ", ")
	last := len(names) + 2
	var b strings.Builder
	b.WriteString(source("prelude"))
	fmt.Fprintf(&b, "local least = (ARGV[%d] or 0) + 0\n", last+1)
	b.WriteString(source(s.needs...))
	fmt.Fprintf(&b, "local key, cost, write = KEYS[1], ARGV[%d] + 0, true\nlocal %s = ", cost, s.parameters)
	separator := ""
	for i := 2; i <= last; i++ {
		if i != cost {
			fmt.Fprintf(&b, "%sARGV[%d] + 0", separator, i)
			separator = ", "
		}
	}
	b.WriteString("\n" + noResults + source(s.file))
	if s.name == leakyBucket.name { // it answers with a wait, not with a decision
		b.WriteString("return { allowed, wait }\n")
	} else {
		b.WriteString("return { " + results + " }\n")
	}
	return newScript(s.name, b.String())
}

// together is the script over several keys.
func together(all ...strategy) *Script {
	var b strings.Builder
	b.WriteString(source("prelude"))
	b.WriteString("local least = ARGV[#ARGV] + 0\n")
	b.WriteString(source("helpers", "window", "month"))
	for _, s := range all {
		fmt.Fprintf(&b, "local function %s(key, cost, write, %s)\n", s.name, s.parameters)
		b.WriteString(noResults + source(s.file) + endFunction)
	}
	b.WriteString(source("together"))
	return newScript("together", b.String())
}

// source joins embedded files. Lines that are only a comment stay out of what is sent.
func source(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		text, err := sources.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return "" // unreachable, the files are embedded; a test runs every script
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(strings.TrimSpace(line), "--") {
				b.WriteString(line)
			}
		}
	}
	return b.String()
}

func newScript(name, text string) *Script {
	s := &Script{Name: name, Text: text}
	// SHA-1 is Redis' way to name a script, so it is computed under FIPS 140-3 as well.
	fips140.WithoutEnforcement(func() {
		sum := sha1.Sum([]byte(text)) //nolint:gosec // see above
		s.SHA1 = hex.EncodeToString(sum[:])
	})
	return s
}
