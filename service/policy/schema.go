package policy

import (
	"fmt"

	"github.com/throttlekit/throttlekit-go/service"
)

// missing is what the reference calls a file without policies.
const missing = "missing limiters map"

// readDocument reads the top level of a file.
func readDocument(out *report, root *node) []*spec {
	root.markRepeats(out, "")
	top := newScope(out, "", position{1, 1}, root)
	if root.kind == nullNode {
		out.add(root.pos, Problem{Rule: missing})
		return nil
	}
	if root.kind != mapNode {
		out.add(root.pos, Problem{Rule: "must be a mapping with the field limiters", Value: root.describe()})
		return nil
	}
	if version := top.get("version"); version != nil && !version.scalar() {
		top.fail("version", version, "must be a number or a string", "")
	}
	for _, block := range []string{"capture", "replay"} {
		if e := top.find(block); e != nil {
			out.add(e.pos, Problem{Path: block, Rule: unsupported})
		}
	}
	common := readDefaults(out, top)
	limiters := top.find("limiters")
	top.finish()
	switch {
	case limiters == nil:
		out.add(root.pos, Problem{Rule: missing})
	case limiters.value.kind == nullNode:
		out.add(limiters.value.pos, Problem{Path: "limiters", Rule: missing, Value: "null"})
	case limiters.value.kind != mapNode:
		top.fail("limiters", limiters.value, "must be a mapping of names to policies", "")
	default:
		return readPolicies(out, limiters.value, common)
	}
	return nil
}

// defaults are what policies have that do not say it themselves.
type defaults struct {
	prefix   *string
	failMode service.FailMode
}

func readDefaults(out *report, top *scope) (d defaults) {
	n := top.get("defaults")
	if n == nil {
		return d
	}
	if n.kind != mapNode {
		top.fail("defaults", n, "must be a mapping", "")
		return d
	}
	s := newScope(out, "defaults", n.pos, n)
	d = readCommon(s, d)
	s.finish()
	return d
}

// readCommon reads the fields that defaults and policies of every kind have.
func readCommon(s *scope, above defaults) defaults {
	if prefix, ok := s.word("prefix"); ok {
		above.prefix = &prefix
	}
	if mode, ok := s.choice("failMode", []string{string(service.FailOpen), string(service.FailClosed)}); ok {
		above.failMode = service.FailMode(mode)
	}
	return above
}

func readPolicies(out *report, limiters *node, common defaults) []*spec {
	specs := make([]*spec, 0, len(limiters.entries))
	for i := range limiters.entries {
		e := &limiters.entries[i]
		if i == MaxPolicies {
			out.add(e.pos, Problem{Path: "limiters", Rule: fmt.Sprintf("must have at most %d policies", MaxPolicies)})
			break
		}
		if !e.repeat {
			specs = append(specs, readPolicy(out, e, common))
		}
	}
	return specs
}

func readPolicy(out *report, e *entry, common defaults) *spec {
	path := join("limiters", e.key)
	if e.key == "" || !showable(e.key) {
		out.add(e.pos, Problem{Path: path, Rule: "must be a name of 1 to 256 bytes, without control characters"})
	}
	if e.value.kind != mapNode {
		out.add(e.value.pos, Problem{Path: path, Rule: "must be a mapping", Value: e.value.describe()})
		return nil
	}
	p := &draft{
		scope: newScope(out, path, e.pos, e.value),
		spec:  &spec{at: e.pos, path: path, records: records{prefix: e.key}, info: service.Info{Name: e.key}},
	}
	own := readCommon(p.scope, common)
	p.spec.info.FailMode = own.failMode
	if own.prefix != nil {
		p.spec.prefix, p.inherits = *own.prefix, own.prefix == common.prefix
	}
	p.read()
	return p.spec
}
