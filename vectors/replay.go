package vectors

import (
	"context"
	"errors"
	"fmt"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// Target is a way to a limiter: in process, through a store, or through a door.
type Target interface {
	// Open starts a limiter of the suite's strategy that has seen no check yet.
	// [Strategy.Build] has already accepted the strategy. An error that matches
	// [throttlekit.ErrUnsupported] skips the suite; any other fails it.
	Open(suite Suite) (Session, error)
}

// Session is one suite under way. [Replay] uses it from one goroutine.
type Session interface {
	// Check decides on cost for key at nowMillis, in epoch milliseconds, which may be
	// earlier than that of the check before. A session that cannot carry the request
	// as it is, such as a fractional cost through a door whose costs are integers, or
	// a clock at 0 where 0 stands for the server's, returns an error that matches
	// [throttlekit.ErrUnsupported]; the rest of the suite is then skipped, because the
	// state is not what the next op expects.
	Check(ctx context.Context, nowMillis int64, key string, cost float64) (throttlekit.Decision, error)
	// Close ends the session and releases what it holds.
	Close() error
}

// Replay runs every suite through target, in the document's order and each to its end,
// and reports what differs from the expectations. A suite that fails does not stop the
// others. The error is that of ctx, with a report of what was done until then.
func Replay(ctx context.Context, doc *Document, target Target) (Report, error) {
	var report Report
	for i := range doc.Suites {
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		s := &doc.Suites[i]
		result := SuiteResult{Primitive: s.Primitive, Name: s.Name}
		err := report.run(ctx, s, target, &result)
		if err != nil && ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		report.add(result, err)
	}
	return report, nil
}

// run runs one suite. The error is what kept it from its end.
func (r *Report) run(ctx context.Context, s *Suite, target Target, result *SuiteResult) (err error) {
	if s.Primitive != RateLimit {
		return fmt.Errorf("%w: nothing here replays the primitive %q", throttlekit.ErrUnsupported, s.Primitive)
	}
	if _, err := s.Strategy.Build(); err != nil {
		return err
	}
	session, err := target.Open(*s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	for i := range s.Ops {
		op := &s.Ops[i]
		got, err := session.Check(ctx, op.Now, s.Key, op.Cost)
		if err != nil {
			return fmt.Errorf("op %d: %w", i, err)
		}
		result.Checked++
		result.differs = r.compare(s.Name, i, got, op.Expect) || result.differs
	}
	return nil
}
