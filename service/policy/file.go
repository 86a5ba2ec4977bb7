package policy

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

// File is a policy file that has been read and is right. It does not change.
type File struct {
	name  string
	specs []*spec
}

// Env is what a program gives to the policies that it builds.
type Env struct {
	// Store keeps the records of all policies. The policies do not close it. Without it,
	// each policy has an in-memory store of its own, which it closes.
	Store throttlekit.Store
	// MaxKeys bounds the records of each private in-memory store, which refuses new keys
	// when all of them are live; then the fail mode answers. Zero means no bound.
	MaxKeys int
	// Clock drives the private in-memory stores, and tells for how long leases have lasted.
	// Defaults to the system clock, and for leases to a monotonic one. A shared store has
	// its own.
	Clock throttlekit.Clock
	// Region names the place where the program runs, for policies that share a budget
	// among regions and do not name one themselves. Defaults to "default".
	Region string
	// Node names this program among those that share the store, for policies whose ceiling on
	// what is in flight a fleet shares: 1 to 256 bytes, another name for each. Such policies
	// cannot be built without it.
	Node string
}

// Parse reads a policy file, YAML or JSON, whose name is for messages only. The error is
// an [*Error], which holds everything that is wrong.
func Parse(name string, text []byte) (*File, error) {
	out := &report{file: name}
	r := reader{out: out}
	var specs []*spec
	if root := r.read(text); root != nil {
		specs = readDocument(out, root)
	}
	if err := out.err(); err != nil {
		return nil, err
	}
	return &File{name: name, specs: specs}, nil
}

// Load reads the policy file at path. The error is that of [Parse] or of the file system.
func Load(path string) (*File, error) {
	f, err := os.Open(path) //nolint:gosec // reading the file that the operator names is the point
	if err != nil {
		return nil, fmt.Errorf("policy file: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("policy file: %w", err)
	}
	return Parse(path, text)
}

// Name is the name that the file was read under.
func (f *File) Name() string { return f.name }

// Policies describes the policies, in the order of the file, without building them.
func (f *File) Policies() []service.Info {
	infos := make([]service.Info, len(f.specs))
	for i, s := range f.specs {
		infos[i] = s.info
	}
	return infos
}

// Build builds the policies, in the order of the file. Whoever gets them closes them,
// usually by way of [service.Service.Close]. The error has an [*Error] in it with
// everything that env lacks; then no policy stays behind.
func (f *File) Build(env Env) ([]service.Policy, error) {
	out := &report{file: f.name}
	built := make([]service.Policy, 0, len(f.specs))
	for _, s := range f.specs {
		p, err := s.make(s, env)
		if err != nil {
			out.add(s.at, Problem{Path: s.path, Rule: "cannot be built: " + err.Error()})
			continue
		}
		built = append(built, p)
	}
	if err := out.err(); err != nil {
		if closing := closeAll(built); closing != nil {
			err = errors.Join(err, closing)
		}
		return nil, err
	}
	return built, nil
}

func closeAll(policies []service.Policy) error {
	wrong := make([]error, 0, len(policies))
	for _, p := range policies {
		wrong = append(wrong, p.Close())
	}
	return errors.Join(wrong...)
}

// Warnings are what a file allows and hardly means: policies that keep their records under one
// prefix of a shared store, with different strategies. A key that two of them see has one
// record, which only one of them can read. Policies with equal strategies may share a
// prefix on purpose, to share their counts; that they do is a warning only if the prefix is
// one that nobody gave, or if the budget of one that admits is among them.
func (f *File) Warnings() []Problem {
	out := &report{file: f.name}
	first := make(map[string]user)
	for _, s := range f.specs {
		for _, u := range []user{{records: s.records, path: s.path}, {records: s.costs, path: join(s.path, "budget"), costs: true}} {
			other, taken := first[u.prefix]
			switch {
			case u.rule == nil:
			case !taken:
				first[u.prefix] = u
			default:
				if harm, hint := u.clash(other); harm != "" {
					shared := fmt.Sprintf("shares the prefix %s with %s, %s", quote(u.prefix), other.path, harm)
					out.add(s.at, Problem{Path: u.path, Rule: shared, Hint: hint})
				}
			}
		}
	}
	return out.problems
}

// user is who keeps records.
type user struct {
	records

	path  string
	costs bool // what the records count is costs
}

// clash says what is wrong with two that keep their records under one prefix, if anything is.
func (u user) clash(other user) (harm, hint string) {
	switch {
	case u.common || other.common:
		return "and so each key's budget", "give each its own prefix in federated"
	case other.rule.Strategy() != u.rule.Strategy():
		return "but not its strategy", "give each its own prefix"
	case u.costs || other.costs:
		return "and so each key's counts", "give each its own prefix"
	}
	return "", ""
}
