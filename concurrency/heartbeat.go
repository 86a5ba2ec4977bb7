package concurrency

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/throttlekit/throttlekit-go"
)

// DefaultCeilingPrefix stands before the name of a ceiling in the keys of stores: see [CeilingKey].
const DefaultCeilingPrefix = "tk:fed"

// CeilingKey is the key of the record under which a fleet shares a ceiling: "tk:fedconc:name" with
// the default prefix. Other implementations put nothing between prefix and "conc", so neither does it.
func CeilingKey(prefix, name string) string { return prefix + "conc:" + name }

// Aggregate is how a fleet makes one ceiling of the limits that its nodes have learned.
type Aggregate string

const (
	// Median is the lower median: one node that is wrong moves it little.
	Median Aggregate = "median"
	// Min is the smallest.
	Min Aggregate = "min"
)

// Allocation is how much of the ceiling a node is to have. What it does have is bounded by what
// the others hold.
type Allocation string

const (
	// EqualSplit gives every node as much as any other, up to one slot.
	EqualSplit Allocation = "equal-split"
	// DemandProportional leaves nodes that do not use their slots with one more than they use,
	// and divides the rest among the others.
	DemandProportional Allocation = "demand-proportional"
)

// CeilingConfig configures [NewCeiling]. Zero values mean the defaults.
type CeilingConfig struct {
	// Aggregate defaults to Median.
	Aggregate Aggregate
	// Allocation defaults to EqualSplit.
	Allocation Allocation
	// AcknowledgedHandoff gives slots away only when who had them has said that it goes by less.
	// Without it, a node whose share has shrunk may exceed the ceiling together with the others
	// until it has heard of that: by half at most, when a second node joins a first.
	AcknowledgedHandoff bool
	// MaxNodes bounds the nodes of a fleet, up to 4096. Defaults to 256. Each beat reads all nodes,
	// so what a store has to do grows with their square; docs/stores.md has numbers for Redis.
	MaxNodes int
}

// Ceiling divides what a backend can bear among the nodes of a fleet. It has no state: a record on
// one key of a Store does, and [Ceiling.Beat] and [Ceiling.Leave] are the transitions on it. All
// that share a key must agree on the configuration.
//
// A node that beats gets, of the ceiling L and with the share t that it is to have,
//
//	max(0, min(t, L − Σ heldⱼ)) slots, summed over all other live nodes j,
//
// where held is the larger of what a node may use and of what it uses: of its share and its requests
// in flight, or with AcknowledgedHandoff, of the largest share that it may still go by and its
// requests in flight. So shares never sum to more than a ceiling that stays the same; with
// AcknowledgedHandoff, neither do the requests in flight of nodes that keep to their shares and stop
// before their time runs out. A ceiling that falls takes effect as nodes beat.
//
// The time is the store's. Specification "TALE" §2.3; what holds and why: docs/proofs.md.
type Ceiling struct {
	config CeilingConfig
}

const (
	defaultNodes = 256
	mostNodes    = 4096
	longestName  = 256
	longestLease = 24 * time.Hour
	// beyond is what no count in a report reaches: processes in Lua print 14 digits of a number.
	beyond = 100_000_000_000_000
)

// NewCeiling returns a ceiling. The error matches [throttlekit.ErrInvalid] and names every field
// that breaks a rule.
func NewCeiling(config CeilingConfig) (*Ceiling, error) {
	orElse(&config.Aggregate, Median)
	orElse(&config.Allocation, EqualSplit)
	orElse(&config.MaxNodes, defaultNodes)
	var wrong invalid
	wrong.require(config.Aggregate == Median || config.Aggregate == Min, "aggregate", string(config.Aggregate), "must be median or min")
	wrong.require(config.Allocation == EqualSplit || config.Allocation == DemandProportional,
		"allocation", string(config.Allocation), "must be equal-split or demand-proportional")
	wrong.require(config.MaxNodes >= 1 && config.MaxNodes <= mostNodes, "maxNodes", config.MaxNodes, "must be an integer from 1 to 4096")
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return &Ceiling{config: config}, nil
}

// Config is what the ceiling was made of, with the defaults filled in.
func (c *Ceiling) Config() CeilingConfig { return c.config }

// invalid collects every broken rule, so that all are reported at once.
type invalid []error

func (w *invalid) require(ok bool, field string, value any, rule string) {
	if !ok {
		*w = append(*w, &throttlekit.InvalidError{Field: field, Value: value, Rule: rule})
	}
}

const ownerPrefix = "owner/"

func (w *invalid) names(node, owner string) {
	w.require(node != "" && len(node) <= longestName && utf8.ValidString(node) && !strings.HasPrefix(node, ownerPrefix), "nodeId", node,
		`must be UTF-8 text of 1 to 256 bytes that does not begin with "owner/"`)
	w.require(len(owner) <= longestName && utf8.ValidString(owner), "owner", owner, "must be UTF-8 text of at most 256 bytes")
}

// Report is what a node says in a beat.
type Report struct {
	// Node is who beats, unique in the fleet: UTF-8 text of 1 to 256 bytes that does not begin
	// with "owner/".
	Node string
	// Owner names the process that uses Node, such as host#pid#nonce, in up to 256 bytes. Two
	// processes that use one Node are found out if both say who they are. Empty if not told.
	Owner string
	// Limit is what the node itself has learned, from 1 to 1,000,000, and InFlight how many requests
	// it has in flight, from 0 to 1,000,000.
	Limit, InFlight int
	// TTL is how long the node's slots are kept for it from when the store has seen this beat: from
	// 1 ms to 24 h. A fraction of a millisecond is rounded up.
	TTL time.Duration
	// Seq counts the beats that the process has issued, from 1 and below 10^14.
	Seq int64
	// Applied is the generation of the grant that the node goes by, taken at the same moment as
	// InFlight; -1 if there is none. It is less than Seq.
	Applied int64
}

// Beat returns the transition by which a node reports and gets its share; its cost means nothing.
// [ShareOf] reads the decision. A decision that denies has changed nothing, and RetryAfterMillis
// says when to try again. Either another live process uses the node's name, whose record runs out
// then: Limit is 0, and [Ceiling.OwnerOf] tells who. Or MaxNodes others are live, the first of which
// runs out then: Limit is how many.
//
// The error matches [throttlekit.ErrInvalid] and names every field that breaks a rule.
func (c *Ceiling) Beat(r Report) (throttlekit.Parameterized, error) {
	var wrong invalid
	wrong.names(r.Node, r.Owner)
	wrong.require(r.Limit >= 1 && r.Limit <= most, "limit", r.Limit, "must be an integer from 1 to 1000000")
	wrong.require(r.InFlight >= 0 && r.InFlight <= most, "inFlight", r.InFlight, "must be an integer from 0 to 1000000")
	wrong.require(r.TTL >= time.Millisecond && r.TTL <= longestLease, "ttl", r.TTL, "must be from 1ms to 24h")
	wrong.require(r.Seq >= 1 && r.Seq < beyond, "seq", r.Seq, "must be an integer from 1 and below 10^14")
	wrong.require(r.Applied >= -1 && r.Applied < r.Seq, "applied", r.Applied, "must be -1 or a generation, which is less than seq")
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return heartbeat{ceiling: c, report: r, lasts: int64((r.TTL + time.Millisecond - 1) / time.Millisecond)}, nil
}

// Leave returns the transition by which a node goes and gives up its slots. It denies, and changes
// nothing, if another live process uses the node's name. The error is as that of Beat.
func (c *Ceiling) Leave(node, owner string) (throttlekit.Parameterized, error) {
	var wrong invalid
	wrong.names(node, owner)
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return heartbeat{ceiling: c, report: Report{Node: node, Owner: owner}, leave: true}, nil
}

// Share is what a node gets in answer to a beat.
type Share struct {
	// Slots is how many requests it may have in flight.
	Slots int
	// Ceiling is how many all nodes may have together, and Nodes how many they are.
	Ceiling, Nodes int
	// Generation names the grant, for Applied of later reports. It is at most the Seq of the beat
	// that this answers. Without AcknowledgedHandoff it is 0.
	Generation int64
}

// ShareOf reads a decision of [Ceiling.Beat] that allows: Remaining is the share's slots, Limit its
// ceiling, RetryAfterMillis its nodes and ResetAtMillis its generation.
func ShareOf(d throttlekit.Decision) Share {
	return Share{Slots: int(d.Remaining), Ceiling: int(d.Limit), Nodes: int(d.RetryAfterMillis), Generation: d.ResetAtMillis}
}

// OwnerOf is which process uses a node's name, by a record that [throttlekit.Store.Load] has read
// with a transition of this ceiling; empty if nobody does, or did not tell.
func (c *Ceiling) OwnerOf(rec throttlekit.Record, node string) string {
	members, _ := rec.Extra.([]member)
	if i, ok := find(members, node); ok {
		return members[i].owner
	}
	return ""
}

// member is what the record tells of one node.
type member struct {
	name, owner              string
	limit, inFlight, expires int64
	share                    int64
	// Only with AcknowledgedHandoff: the seq of the beat at which the share last changed, the
	// largest seq seen, and the largest share that the node may still go by.
	generation, seq, high int64
}

func find(members []member, name string) (int, bool) {
	return slices.BinarySearchFunc(members, name, func(m member, name string) int { return cmp.Compare(m.name, name) })
}

// heartbeat is a node's step on the record of a ceiling. A record's Extra is a []member sorted by name.
type heartbeat struct {
	ceiling *Ceiling
	report  Report
	lasts   int64
	leave   bool
}

// Name implements [throttlekit.Transition].
func (h heartbeat) Name() string { return "heartbeat" }

// Parameters implements [throttlekit.Parameterized]: 1 to leave or 0, 1 for the smallest limit or 0
// for the median, 1 for shares by demand or 0, 1 for acknowledged handoff or 0, most nodes, limit,
// in flight, TTL in milliseconds, seq, applied, node and owner.
func (h heartbeat) Parameters() []string {
	flag := func(on bool) string {
		if on {
			return "1"
		}
		return "0"
	}
	c, r := h.ceiling.config, h.report
	return []string{
		flag(h.leave), flag(c.Aggregate == Min), flag(c.Allocation == DemandProportional), flag(c.AcknowledgedHandoff),
		strconv.Itoa(c.MaxNodes), strconv.Itoa(r.Limit), strconv.Itoa(r.InFlight), strconv.FormatInt(h.lasts, 10),
		strconv.FormatInt(r.Seq, 10), strconv.FormatInt(r.Applied, 10), r.Node, r.Owner,
	}
}

// Apply implements [throttlekit.Transition].
func (h heartbeat) Apply(rec throttlekit.Record, now int64, _ float64) (throttlekit.Record, throttlekit.Decision, int64) {
	members, _ := rec.Extra.([]member)
	i, known := find(members, h.report.Node)
	if known {
		holder := members[i]
		if holder.expires >= now && holder.owner != "" && h.report.Owner != "" && holder.owner != h.report.Owner {
			return rec, throttlekit.Decision{RetryAfterMillis: holder.expires - now + 1}, 0
		}
	}
	if h.leave {
		if !known {
			return rec, throttlekit.Decision{Allowed: true}, 0
		}
		members = slices.Delete(slices.Clone(members), i, i+1)
		return throttlekit.Record{Extra: members}, throttlekit.Decision{Allowed: true}, lasting(members, now)
	}
	live := make([]member, 0, len(members)+1)
	for _, m := range members {
		if m.expires >= now {
			live = append(live, m)
		}
	}
	i, known = find(live, h.report.Node)
	if !known {
		if len(live) >= h.ceiling.config.MaxNodes {
			first := slices.MinFunc(live, func(a, b member) int { return cmp.Compare(a.expires, b.expires) })
			return rec, throttlekit.Decision{Limit: int64(len(live)), RetryAfterMillis: first.expires - now + 1}, 0
		}
		live = slices.Insert(live, i, member{name: h.report.Node})
	}
	limit := h.beat(live, i, now)
	self := live[i]
	return throttlekit.Record{Extra: live}, throttlekit.Decision{
		Allowed: true, Limit: limit, Remaining: self.share, RetryAfterMillis: int64(len(live)),
		// What a beat that came late is told counts for no more than that beat: later ones may
		// have been told of other shares, and those answers may still be on their way.
		ResetAtMillis: min(self.generation, h.report.Seq),
	}, lasting(live, now)
}

// beat makes of the live members those after the beat of one, and returns the ceiling.
func (h heartbeat) beat(live []member, i int, now int64) (ceiling int64) {
	c, r, self := h.ceiling.config, h.report, &live[i]
	self.owner = cmp.Or(r.Owner, self.owner)
	self.limit, self.expires = int64(r.Limit), now+h.lasts
	ceiling = c.aggregate(live)
	if c.AcknowledgedHandoff && r.Seq <= self.seq {
		return ceiling
	}
	self.inFlight = int64(r.InFlight)
	share := c.target(live, i, ceiling)
	rest := ceiling
	for j, m := range live {
		if j != i {
			rest -= c.held(m)
		}
	}
	share = max(0, min(share, rest))
	if !c.AcknowledgedHandoff {
		self.share, self.generation, self.seq, self.high = share, 0, 0, 0
		return ceiling
	}
	self.seq = r.Seq
	if share != self.share {
		self.share, self.generation = share, r.Seq
	}
	self.high = max(self.high, share)
	if r.Applied >= self.generation {
		self.high = share
	}
	return ceiling
}

// held is how many slots a member may be using.
func (c CeilingConfig) held(m member) int64 {
	if c.AcknowledgedHandoff {
		return max(m.high, m.inFlight)
	}
	return max(m.share, m.inFlight)
}

// aggregate is the ceiling that members have together.
func (c CeilingConfig) aggregate(live []member) int64 {
	limits := make([]int64, len(live))
	for i, m := range live {
		limits[i] = m.limit
	}
	slices.Sort(limits)
	if c.Aggregate == Min {
		return limits[0]
	}
	return limits[(len(limits)-1)/2]
}

// target is the share that one of the members is to have, whatever the others hold.
func (c CeilingConfig) target(live []member, i int, ceiling int64) int64 {
	self := live[i]
	if c.Allocation == EqualSplit {
		return portion(ceiling, len(live), i)
	}
	hungry, rank, spare := 0, 0, ceiling
	for j, m := range live {
		switch {
		case m.inFlight < m.share:
			spare -= m.inFlight + 1
		case j < i:
			rank++
			fallthrough
		default:
			hungry++
		}
	}
	if self.inFlight < self.share {
		return self.inFlight + 1 // and one to grow by
	}
	return max(1, portion(max(0, spare), hungry, rank))
}

// portion is how many of n units go to one of several who share them as equally as can be.
func portion(n int64, among, rank int) int64 {
	each, left := n/int64(among), n%int64(among)
	if int64(rank) < left {
		return each + 1
	}
	return each
}

// lasting is for how long a record tells more than a fresh one.
func lasting(members []member, now int64) int64 {
	longest := int64(1)
	for _, m := range members {
		longest = max(longest, m.expires-now)
	}
	return longest
}

// The text of a record is a JSON object of the fields and values that it has on Redis, a layout
// that is shared with other implementations. A member is its name with its numbers: limit, in
// flight, expires, share, and with AcknowledgedHandoff generation, seq and high. Beside it stands
// its owner, which others take for a node whose time ran out long ago.

const noTime = "0 0 0 0"

// ownerField is "owner/", the length of the name, "/", the name, "/" and the owner.
func ownerField(name, owner string) string {
	return fmt.Sprintf("%s%d/%s/%s", ownerPrefix, len(name), name, owner)
}

func readOwnerField(field string) (name, owner string, ok bool) {
	rest, ok := strings.CutPrefix(field, ownerPrefix)
	if !ok {
		return "", "", false
	}
	size, rest, _ := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(size, 10, 16)
	if err != nil || uint64(len(rest)) <= n || rest[n] != '/' {
		return "", "", false
	}
	return rest[:n], rest[n+1:], true
}

// Encode implements [throttlekit.Transition].
func (h heartbeat) Encode(rec throttlekit.Record) ([]byte, error) {
	members, _ := rec.Extra.([]member)
	fields := make(map[string]string, 2*len(members))
	for _, m := range members {
		value := fmt.Sprintf("%d %d %d %d", m.limit, m.inFlight, m.expires, m.share)
		if max(m.generation, m.seq, m.high) > 0 {
			value += fmt.Sprintf(" %d %d %d", m.generation, m.seq, m.high)
		}
		fields[m.name] = value
		if m.owner != "" {
			fields[ownerField(m.name, m.owner)] = noTime
		}
	}
	return json.Marshal(fields)
}

// Decode implements [throttlekit.Transition].
func (h heartbeat) Decode(text []byte) (throttlekit.Record, error) {
	var fields map[string]string
	err := json.Unmarshal(text, &fields)
	if err == nil && fields == nil {
		err = errors.New("a field is missing")
	}
	members := make([]member, 0, len(fields))
	owners := make(map[string]string)
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		name, owner, ok := readOwnerField(field)
		if ok && fields[field] == noTime {
			owners[name] = owner
			continue
		}
		m, wrong := readMember(fields[field])
		err = cmp.Or(err, wrong)
		m.name = field
		members = append(members, m)
	}
	if err != nil {
		return throttlekit.Record{}, fmt.Errorf("concurrency: corrupt %s record: %w", h.Name(), err)
	}
	for i := range members {
		members[i].owner = owners[members[i].name]
	}
	return throttlekit.Record{Extra: members}, nil
}

// readMember reads the numbers of a member: 4 or 7 integers, not negative.
func readMember(text string) (m member, err error) {
	numbers := []*int64{&m.limit, &m.inFlight, &m.expires, &m.share, &m.generation, &m.seq, &m.high}
	values := strings.Split(text, " ")
	if len(values) != 4 && len(values) != 7 {
		return m, errors.New("a node is not of 4 or 7 numbers")
	}
	for i, value := range values {
		n, err := strconv.ParseUint(value, 10, 53)
		if err != nil || n >= beyond {
			return m, errors.New("a number of a node is not an integer from 0 and below 10^14")
		}
		*numbers[i] = int64(n)
	}
	return m, nil
}
