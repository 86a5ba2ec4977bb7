package engine

import (
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// plan is how one transition runs as a script.
type plan struct {
	kind       *kind
	parameters []string
	least      string
	// unit is ARGV of the most usual call, the server's clock and a cost of 1, in plans that are kept.
	unit []string
	// pair names the fields of a hash that holds two numbers, in Redis and in JSON text.
	pair []field
	// slots is the size of a sliding window's ring.
	slots int
}

type field struct{ redis, json string }

// serverClock is the argument that asks a script for the server's clock.
const serverClock = "0"

// args is ARGV of the strategy's script. The slice must not be changed.
func (p *plan) args(now string, cost float64) []string {
	if cost == 1 && now == serverClock && p.unit != nil {
		return p.unit
	}
	return p.build(now, number(cost))
}

func (p *plan) build(now, cost string) []string {
	args := make([]string, 0, len(p.parameters)+3)
	args = append(args, now)
	before := p.kind.cost - 2
	args = append(args, p.parameters[:before]...)
	args = append(args, cost)
	args = append(args, p.parameters[before:]...)
	if p.least != "0" {
		args = append(args, p.least)
	}
	return args
}

// together appends the values that the script over several keys takes for one of them.
func (p *plan) together(args []string, cost float64) []string {
	args = append(args, p.kind.id, number(cost))
	args = append(args, p.parameters...)
	for range max(0, 3-len(p.parameters)) {
		args = append(args, "0")
	}
	return args
}

// decision reads five integers of a reply: those of one decision.
func decision(v []int64) throttlekit.Decision {
	return throttlekit.Decision{
		Allowed: v[0] == 1, Limit: v[1], Remaining: v[2], ResetAtMillis: v[3], RetryAfterMillis: v[4],
	}
}

// decision reads the reply of the strategy's script.
func (p *plan) decision(reply *Reply) (throttlekit.Decision, error) {
	v := reply.Ints()
	switch {
	case len(v) == 5 && p.kind != kindLeakyBucket:
		return decision(v), nil
	case len(v) == 2 && p.kind == kindLeakyBucket:
		return throttlekit.Decision{Allowed: v[0] == 1, RetryAfterMillis: v[1]}, nil
	}
	return throttlekit.Decision{}, errReply
}

// number writes x so that Lua reads the same bits.
func number(x float64) string {
	const exactIntegers = 1 << 53
	if x == math.Trunc(x) && math.Abs(x) <= exactIntegers {
		return strconv.FormatInt(int64(x), 10)
	}
	return strconv.FormatFloat(x, 'g', -1, 64)
}

// millis converts a duration as the core does.
func millis(d time.Duration) string { return number(float64(d) / float64(time.Millisecond)) }

// instant is the argument for an explicit time, which at the epoch must not read as the server's clock.
func instant(nowMillis int64) string {
	if nowMillis == 0 {
		return "0e0"
	}
	return strconv.FormatInt(nowMillis, 10)
}

// plans remembers the plans of the core's transitions. Rules are immutable and made
// once, so that their number is small; a program that keeps making new ones only
// loses the memory from time to time.
type plans struct {
	least string
	known sync.Map // throttlekit.Transition to *plan
	count atomic.Int64
}

const maxPlans = 4096

// of is the plan of a transition, or nil if it has no script.
func (p *plans) of(t throttlekit.Transition) *plan {
	if !fromCore(t) {
		return p.named(t)
	}
	if known, ok := p.known.Load(t); ok {
		plan, _ := known.(*plan)
		return plan
	}
	switch d := t.(type) { // what is made anew for each call is not remembered
	case interface {
		UpTo() (throttlekit.Rule, float64)
	}:
		rule, least := d.UpTo()
		return p.derived(rule, func(k *kind) *kind { return k.upTo }, number(least))
	case interface {
		Refund() (throttlekit.Rule, int64)
	}:
		rule, resetAt := d.Refund()
		return p.derived(rule, func(k *kind) *kind { return k.refund }, strconv.FormatInt(resetAt, 10))
	}
	plan := newPlan(t, p.least)
	if plan == nil {
		return p.named(t)
	}
	if p.count.Add(1) > maxPlans {
		p.known.Clear()
		p.count.Store(1)
	}
	p.known.Store(t, plan)
	return plan
}

// derived is the plan of what the core has made out of a rule: another script on the same layout.
func (p *plans) derived(rule throttlekit.Rule, script func(*kind) *kind, parameter string) *plan {
	of := p.of(rule)
	if of == nil || script(of.kind) == nil {
		return nil
	}
	parameters := append(slices.Clone(of.parameters), parameter)
	return &plan{kind: script(of.kind), parameters: parameters, least: p.least, pair: of.pair, slots: of.slots}
}

// named is the plan of a transition that names its script and brings the parameters.
func (p *plans) named(t throttlekit.Transition) *plan {
	parameterized, ok := t.(throttlekit.Parameterized)
	if !ok || !ours(t) {
		return nil
	}
	kind, ok := named[t.Name()]
	if !ok {
		return nil
	}
	return &plan{kind: kind, parameters: parameterized.Parameters(), least: p.least}
}

var corePath = reflect.TypeFor[throttlekit.Decision]().PkgPath()

// fromCore reports whether a transition is one of the core's own types. One that embeds
// such a type may behave differently although it offers the same methods, and so
// must not run as the script of what it embeds.
func fromCore(t throttlekit.Transition) bool {
	typ := reflect.TypeOf(t)
	return typ != nil && typ.Kind() == reflect.Pointer && typ.Elem().PkgPath() == corePath
}

// ours reports whether a transition is of a type that this project has declared, for the same reason.
func ours(t throttlekit.Transition) bool {
	typ := reflect.TypeOf(t)
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	return typ.PkgPath() == corePath || strings.HasPrefix(typ.PkgPath(), corePath+"/")
}

func newPlan(t throttlekit.Transition, least string) *plan {
	p := &plan{least: least}
	switch r := t.(type) {
	case interface {
		LeakyBucket() throttlekit.LeakyBucket
	}:
		bucket := r.LeakyBucket()
		p.set(kindLeakyBucket, number(bucket.RatePerSec), millis(bucket.MaxQueue))
	case throttlekit.Rule:
		p.recognise(r.Strategy())
	}
	if p.kind == nil {
		return nil
	}
	p.unit = p.build(serverClock, "1")
	return p
}

func (p *plan) set(k *kind, parameters ...string) { p.kind, p.parameters = k, parameters }

func (p *plan) recognise(strategy throttlekit.Strategy) {
	startCount := []field{{"s", "start"}, {"c", "count"}}
	switch s := strategy.(type) {
	case throttlekit.GCRA:
		p.set(kindGCRA, millis(s.Period), number(s.Limit), number(s.Burst))
	case throttlekit.TokenBucket:
		p.pair = []field{{"t", "tokens"}, {"l", "last"}}
		p.set(kindTokenBucket, number(s.Capacity), number(s.RefillPerSec))
	case throttlekit.FixedWindow:
		p.pair = startCount
		p.set(kindFixedWindow, number(s.Limit), millis(s.Window))
	case throttlekit.SlidingWindow:
		p.sliding(s.Window, s.Limit, s.Buckets)
	case throttlekit.SlidingWindowLog:
		p.set(kindSlidingWindowLog, millis(s.Window), number(s.Limit))
	case throttlekit.Quota:
		if s.Cadence == throttlekit.Rolling {
			p.sliding(s.Period, s.Limit, s.Buckets)
			return
		}
		p.pair = startCount
		p.quota(s)
	}
}

func (p *plan) sliding(window time.Duration, limit float64, buckets int) {
	p.slots = buckets + 1
	p.set(kindSlidingWindow, millis(window), number(limit), strconv.Itoa(buckets))
}

func (p *plan) quota(s throttlekit.Quota) {
	modes := map[throttlekit.Cadence]string{
		throttlekit.CalendarMonth: "1", throttlekit.CalendarWeek: "2", throttlekit.CalendarDay: "3", throttlekit.Fixed: "4",
	}
	mode, ok := modes[s.Cadence]
	if !ok {
		return
	}
	period := "0"
	if s.Cadence == throttlekit.Fixed {
		period = millis(s.Period)
	}
	// The core counts weekdays as ISO does, Monday 1 to Sunday 7, and the script Sunday 0 to Saturday 6.
	weekStart := strconv.Itoa(s.WeekStart % 7)
	p.set(kindQuota, number(s.Limit), mode, period, strconv.FormatInt(s.Anchor, 10), millis(s.Offset), weekStart)
}
