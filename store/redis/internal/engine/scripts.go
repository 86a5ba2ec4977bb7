package engine

import (
	"crypto/fips140"
	"crypto/sha1" //nolint:gosec // Redis names scripts by their SHA-1; nothing is secured by it
	"embed"
	"encoding/hex"
	"fmt"
	"slices"
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

	id     string // its type in a script over several keys, or empty if it has none
	layout layout
	// cost is the place of the cost in ARGV, counted from 1; the parameters stand around it in their order.
	cost int
	// upTo and refund are the kinds of what the core makes out of a strategy, if it does.
	upTo, refund *kind
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
	fixedWindow      = strategy{"fixed_window", "fixedwindow", "limit, width", []string{"helpers", "current", "window"}}
	slidingWindow    = strategy{"sliding_window", "slidingwindow", "span, limit, buckets", []string{"helpers"}}
	slidingWindowLog = strategy{"sliding_window_log", "slidingwindowlog", "span, limit", []string{"helpers"}}
	leakyBucket      = strategy{"leaky_bucket", "leakybucket", "rate, longest", []string{"helpers"}}
	quota            = strategy{
		"quota", "quota", "limit, mode, period, anchor, offset, week_start", []string{"helpers", "current", "window", "month"},
	}
	decidedHere = strategy{"given", "given", "verdict, held, following, lasts", []string{"helpers"}}

	federationLease  = strategy{"federation_lease", "federationlease", "limit, width, smallest", []string{"helpers", "federation"}}
	federationReturn = strategy{"federation_return", "federationreturn", "limit, width, ended", []string{"helpers", "federation"}}
	tokenBudget      = strategy{"token_budget", "tokenbudget", "op, frames_name, id_name, amount, extra, lasts", []string{"helpers"}}
	regionPool       = strategy{"region_pool", "regionpool", "limit, width, most, weight, ended, region_name", []string{"helpers"}}
	heartbeat        = strategy{
		name: "heartbeat", file: "heartbeat", needs: []string{"helpers"},
		parameters: "leaving, smallest, by_demand, handoff, most, limit, in_flight, lasts, seq, applied, id_name, owner_name",
	}
)

// The places of the cost are those of the specification's §2 and §3.
var (
	kindGCRA             = &kind{gcra.alone(5), "1", stringLayout, 5, gcra.upTo(stringLayout), nil}
	kindTokenBucket      = &kind{tokenBucket.alone(4), "2", hashLayout, 4, tokenBucket.upTo(hashLayout), nil}
	kindFixedWindow      = &kind{fixedWindow.alone(4), "3", hashLayout, 4, fixedWindow.upTo(hashLayout), fixedWindow.refund()}
	kindSlidingWindow    = &kind{slidingWindow.alone(4), "4", hashLayout, 4, slidingWindow.upTo(hashLayout), nil}
	kindSlidingWindowLog = &kind{slidingWindowLog.alone(4), "5", zsetLayout, 4, slidingWindowLog.upTo(zsetLayout), nil}
	kindLeakyBucket      = &kind{Script: leakyBucket.alone(4), id: "6", layout: stringLayout, cost: 4}
	kindQuota            = &kind{quota.alone(3), "7", hashLayout, 3, quota.upTo(hashLayout), quota.refund()}

	// A hash whose text form is a JSON object of the same fields and values.
	kindHeartbeat = &kind{Script: heartbeat.alone(2), layout: hashLayout, cost: 2}

	scriptTogether = together(gcra, tokenBucket, fixedWindow, slidingWindow, slidingWindowLog, leakyBucket, quota, decidedHere, tokenBudget)
	scriptLoad     = newScript("load", source("load"))
	scriptSwap     = newScript("swap", source("swap"))
)

// named are the scripts of transitions that the core does not know, by the transition's name. Each has
// a layout of its own, which nothing but scripts reads unless its kind names one.
var named = map[string]*kind{
	"federationLease":  {Script: federationLease.alone(2), cost: 2},
	"federationReturn": {Script: federationReturn.alone(2), cost: 2},
	"heartbeat":        kindHeartbeat,
	"regionPool":       {Script: regionPool.alone(2), cost: 2},
	"tokenBudget":      {Script: tokenBudget.alone(2), id: "9", cost: 2},
}

const (
	results     = "allowed, ceiling, left, reset, wait"
	noResults   = "local " + results + " = 0, 0, 0, 0, 0\n"
	endFunction = "return " + results + "\nend\n"
	endScript   = "return { " + results + " }\n"
)

// alone is the script of one strategy. ARGV is the time, then cost and parameters, then the shortest time to live.
func (s strategy) alone(cost int) *Script {
	var b strings.Builder
	s.begin(&b, cost)
	b.WriteString(source(s.needs...))
	b.WriteString(noResults + source(s.file))
	if s.name == leakyBucket.name { // it answers with a wait, not with a decision
		b.WriteString("return { allowed, wait }\n")
	} else {
		b.WriteString(endScript)
	}
	return newScript(s.name, b.String())
}

// begin reads ARGV. Parameters are numbers, but for those whose name ends in _name.
func (s strategy) begin(b *strings.Builder, cost int) {
	b.WriteString(source("prelude"))
	last := strings.Count(s.parameters, ", ") + 3
	fmt.Fprintf(b, "local least = (ARGV[%d] or 0) + 0\n", last+1)
	fmt.Fprintf(b, "local key, cost, write = KEYS[1], ARGV[%d] + 0, true\nlocal %s = ", cost, s.parameters)
	i := 2
	values := make([]string, 0, last)
	for name := range strings.SplitSeq(s.parameters, ", ") {
		if i == cost {
			i++
		}
		value := fmt.Sprintf("ARGV[%d]", i)
		if !strings.HasSuffix(name, "_name") {
			value += " + 0"
		}
		values = append(values, value)
		i++
	}
	b.WriteString(strings.Join(values, ", ") + "\n")
}

// upTo is the script that charges as much of the cost as fits: the strategy as a function, which it
// calls with up to three costs. The least to charge stands behind the strategy's parameters.
func (s strategy) upTo(layout layout) *kind {
	const cost = 2
	var b strings.Builder
	with := s
	with.parameters += ", smallest"
	with.begin(&b, cost)
	b.WriteString(source(append([]string{"helpers"}, s.needs[min(1, len(s.needs)):]...)...))
	b.WriteString("local function decide(cost)\n" + noResults + source(s.file) + endFunction)
	b.WriteString(source("upto") + endScript)
	return &kind{Script: newScript("up_to_"+s.name, b.String()), layout: layout, cost: cost}
}

// refund is the script that gives units back: the strategy with another function in place of the
// check of a window. The window's end stands behind the strategy's parameters.
func (s strategy) refund() *kind {
	const cost = 2
	s.name, s.parameters = "refund_"+s.name, s.parameters+", ended"
	s.needs = slices.Clone(s.needs)
	s.needs[slices.Index(s.needs, "window")] = "refund"
	return &kind{Script: s.alone(cost), layout: hashLayout, cost: cost}
}

// together is the script over several keys.
func together(all ...strategy) *Script {
	var b strings.Builder
	b.WriteString(source("prelude"))
	b.WriteString("local least = ARGV[#ARGV] + 0\n")
	b.WriteString(source("helpers", "current", "window", "month"))
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
