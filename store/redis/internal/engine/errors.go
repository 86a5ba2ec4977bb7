package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/throttlekit/throttlekit-go"
)

var (
	errReply     = errors.New("the server's reply to a script has an unknown form")
	errCrossSlot = errors.New("the keys of one atomic batch must lie in one Cluster slot; " +
		`give them a common hash tag, such as "user:{42}" and "address:{42}"`)
	// ErrClientClosed is what clients answer once the program has closed them.
	ErrClientClosed = errors.New("the Redis client is closed")
)

// corruptError marks a record that the transition cannot read.
type corruptError struct{ cause error }

func (e *corruptError) Error() string { return "corrupt record: " + e.cause.Error() }
func (e *corruptError) Unwrap() error { return e.cause }

// storeError is what callers see. Its text is free of secrets and of keys.
type storeError struct {
	kind  error // the sentinel that it matches
	text  string
	cause error
}

func (e *storeError) Error() string { return e.text }

// Unwrap gives the sentinel, and the cause if the caller can tell it apart.
func (e *storeError) Unwrap() []error { return []error{e.kind, e.cause} }

// notLoaded reports that the server did not know a script, and so did not run it.
func notLoaded(err error) bool {
	var reply *ServerError
	return errors.As(err, &reply) && strings.HasPrefix(reply.Text, "NOSCRIPT")
}

// explain makes an error of the client one of the store: which store, what is wrong, and what to do.
func (s *Store) explain(ctx context.Context, err error) error {
	var invalid *throttlekit.InvalidError
	switch {
	case errors.As(err, &invalid):
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err() // the caller went away; that says nothing about the store
	case s.closed.Load():
		return throttlekit.ErrClosed
	}
	kind, what, advice := throttlekit.ErrStoreUnavailable, s.clean(err.Error()), ""
	var reply *ServerError
	var corrupt *corruptError
	var network *net.OpError
	switch {
	case errors.Is(err, throttlekit.ErrUnsupported), errors.Is(err, errCrossSlot):
		kind = throttlekit.ErrUnsupported
	case errors.As(err, &reply):
		advice, kind = diagnose(reply.Text)
	case errors.As(err, &corrupt):
		advice = foreign
	case errors.Is(err, context.DeadlineExceeded):
		what, advice = s.lateness(ctx), "check that the server runs and is not overloaded; "+unknown
	case errors.As(err, &network) && network.Op == "dial":
		advice = "check that the server runs and that its address is right"
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		advice = "the connection broke; if that goes on, look at the server's log and at maxclients; " + unknown
	case errors.Is(err, ErrClientClosed):
		advice = "the program closed it while the store was in use"
	}
	return &storeError{kind: kind, text: s.sentence(kind, what, advice), cause: err}
}

func (s *Store) sentence(kind error, what, advice string) string {
	keys := "without a prefix"
	if s.config.Prefix != "" {
		keys = fmt.Sprintf("with prefix %q", s.config.Prefix)
	}
	text := fmt.Sprintf("%v: redis store, keys %s: %s", kind, keys, what)
	if advice != "" {
		text += " (" + advice + ")"
	}
	return text
}

func (s *Store) lateness(ctx context.Context) string {
	if _, ok := ctx.Deadline(); ok {
		return "no answer within the caller's deadline"
	}
	return fmt.Sprintf("no answer within %v", s.config.Timeout)
}

// clean takes out of a message what must not be seen: secrets, and the arguments, keys among
// them, that a server repeats when it does not know a command.
func (s *Store) clean(text string) string {
	text, _, _ = strings.Cut(text, ", with args beginning with:")
	text, _, _ = strings.Cut(text, " script: ") // its digest and a line of it
	text, _, _ = strings.Cut(text, "\n")
	for _, secret := range s.secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return text
}

const unknown = "whether the call was charged is unknown"

const foreign = "the key holds another kind of limit or other data; nothing was changed; reset it or use another prefix"

// diagnoses tell from a server's error what is to be done. The first match counts; old servers put
// the error of a command behind words about the script.
var diagnoses = []struct {
	sign   string
	kind   error
	advice string
}{
	{"CROSSSLOT", throttlekit.ErrUnsupported, errCrossSlot.Error()},
	{"CORRUPT", nil, foreign},
	{"WRONGTYPE", nil, foreign},
	{"NOAUTH", nil, "the server wants a password; none was given"},
	{"WRONGPASS", nil, "the user name or the password is wrong"},
	{"invalid password", nil, "the password is wrong"},
	{"without any password configured", nil, "the server has no password; give none"},
	{"NOPERM", nil, "the user needs EVALSHA, EVAL, TIME and UNLINK, and to read and write strings, hashes and sorted sets"},
	{"READONLY", nil, "the server is a replica; connect to the primary"},
	{"LOADING", nil, "the server is loading its data; wait"},
	{"MASTERDOWN", nil, "the replica has lost its primary; connect to the primary"},
	{"CLUSTERDOWN", nil, "the Cluster does not serve all slots; wait for the failover or look at CLUSTER INFO"},
	{"MOVED", nil, "the server is part of a Cluster; connect with a Cluster client"},
	{"ASK ", nil, "the server is part of a Cluster; connect with a Cluster client"},
	{"TRYAGAIN", nil, "the Cluster is moving the slot; wait"},
	{"OOM", nil, "the server is out of memory; raise maxmemory"},
	{"MISCONF", nil, "the server cannot save its data and refuses writes; look at its log"},
	{"NOREPLICAS", nil, "the server has too few replicas and refuses writes"},
	{"BUSY", nil, "another script keeps the server busy"},
	{"DB index", nil, "the server has no database of that number"},
	{"unknown command", nil, "the server does not offer the command; the store needs Lua scripting, EVALSHA and EVAL"},
	{"max number of clients", nil, "the server has no connection left; raise maxclients"},
	{"NOSCRIPT", nil, "the server forgets its scripts faster than they can be run"},
}

func diagnose(text string) (advice string, kind error) {
	for _, d := range diagnoses {
		if strings.Contains(text, d.sign) {
			if d.kind != nil {
				return d.advice, d.kind
			}
			return d.advice, throttlekit.ErrStoreUnavailable
		}
	}
	return "", throttlekit.ErrStoreUnavailable
}
