package engine

import "context"

// Client is what the engine needs of a Redis client. A call is sent at most once,
// whatever happens to the connection: a script that may have run must not run again.
// Methods return when ctx ends at the latest.
type Client interface {
	// Eval runs one script.
	Eval(ctx context.Context, call Call) (Reply, error)
	// EvalEach runs several scripts, in one round trip to each server, and those on
	// one key in the order given. Outcomes are in the order of the calls.
	EvalEach(ctx context.Context, calls []Call) []Outcome
	// Unlink deletes a key.
	Unlink(ctx context.Context, key string) error
	// Sharding says how keys are spread over servers.
	Sharding(ctx context.Context) (Sharding, error)
	// Close releases what the client holds; a client that was lent stays open.
	Close()
}

// Sharding says which keys are on one server.
type Sharding int

const (
	// Whole has all keys on one server.
	Whole Sharding = iota
	// BySlot has those of one Cluster slot on one server.
	BySlot
	// ByTag has those of one hash tag on one server.
	ByTag
)

// Call is one run of a script.
type Call struct {
	Script *Script
	// Whole sends the script's text instead of its digest.
	Whole bool
	// Key is the first key, Keys are those behind it.
	Key  string
	Keys []string
	Args []string
}

// Reply is what a script returned: integers or texts.
type Reply struct {
	// Few holds the integers, Count of them, if they are at most five, and Many does otherwise.
	Few   [5]int64
	Count int
	Many  []int64
	Texts []string
}

// Ints are the integers of the reply.
func (r *Reply) Ints() []int64 {
	if r.Many != nil {
		return r.Many
	}
	return r.Few[:r.Count]
}

// Outcome is a reply or the error in its place.
type Outcome struct {
	Reply Reply
	Err   error
}

// ServerError is an error that the server answered with, as opposed to one of the connection.
type ServerError struct{ Text string }

func (e *ServerError) Error() string { return e.Text }
