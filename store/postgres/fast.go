package pgstore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// call is one check that the database can decide: which function, and its parameters but
// for the key, the time and the cost.
type call struct {
	kind kind
	args [3]float64
	n    int
}

// coreTypes are the core's own rules. A user's rule may embed one of them and decide
// otherwise, so the type counts, not only the strategy that it reports.
var coreTypes = [kinds]reflect.Type{
	gcra:        ruleType(throttlekit.GCRA{Limit: 1, Period: time.Second}),
	tokenBucket: ruleType(throttlekit.TokenBucket{Capacity: 1, RefillPerSec: 1}),
	fixedWindow: ruleType(throttlekit.FixedWindow{Limit: 1, Window: time.Second}),
}

func ruleType(s throttlekit.Strategy) reflect.Type {
	rule, err := s.Rule()
	if err != nil {
		return nil // matches no rule
	}
	return reflect.TypeOf(rule)
}

// recognize finds the database's form of a transition. The constants are computed as the
// core computes them; specification: §2.1 to §2.3.
func recognize(t throttlekit.Transition) (call, bool) {
	rule, ok := t.(throttlekit.Rule)
	if !ok {
		return call{}, false
	}
	millis := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	var c call
	switch s := rule.Strategy().(type) {
	case throttlekit.GCRA:
		interval := millis(s.Period) / s.Limit
		c = call{gcra, [3]float64{interval, interval * s.Burst}, 2}
	case throttlekit.TokenBucket:
		if s.Capacity >= largest {
			return call{}, false
		}
		_, _, ttl := rule.Apply(throttlekit.Record{}, 0, s.Capacity) // the time from empty to full
		c = call{tokenBucket, [3]float64{s.Capacity, s.RefillPerSec / 1000, float64(ttl)}, 3}
	case throttlekit.FixedWindow:
		if s.Limit >= largest {
			return call{}, false
		}
		c = call{fixedWindow, [3]float64{s.Limit, millis(s.Window)}, 2}
	default:
		return call{}, false
	}
	return c, reflect.TypeOf(t) == coreTypes[c.kind]
}

// parameters are the arguments of the statement.
func (c call) parameters(key string, now any, cost float64) []any {
	args := append(make([]any, 0, 6), key, now)
	for _, a := range c.args[:c.n] {
		args = append(args, a)
	}
	return append(args, cost)
}

// verdict is the first number of a function's reply.
type verdict string

const (
	denied    verdict = "0"
	allowed   verdict = "1"
	needsCore verdict = "2"
	unsuited  verdict = "3"
)

// errNeedsCore says that the database left a check to the core, at the time it read.
var errNeedsCore = errors.New("the check needs the core")

// errUnsuited says that the database's, the role's or the pool's defaults do not suit the
// functions. An isolation level above READ COMMITTED shows by serialization failures.
var errUnsuited = errors.New("the defaults of the session do not suit")

// decide turns a reply into the decision. The core makes it, from the record that the
// database found; the database's own verdict must be the same, or what it wrote would
// not be what the decision says.
func decide(reply string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	head, rest, _ := strings.Cut(reply, " ")
	switch verdict(head) {
	case denied, allowed:
	case needsCore:
		return throttlekit.Decision{}, errNeedsCore
	case unsuited:
		return throttlekit.Decision{}, errUnsuited
	default:
		return throttlekit.Decision{}, fmt.Errorf("a function replied %q", reply)
	}
	var numbers [3]float64
	for i := range numbers {
		var field string
		field, rest, _ = strings.Cut(rest, " ")
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return throttlekit.Decision{}, fmt.Errorf("a function replied %q", reply)
		}
		numbers[i] = n
	}
	_, d, _ := t.Apply(throttlekit.Record{A: numbers[1], B: numbers[2]}, int64(numbers[0]), cost)
	if d.Allowed != (verdict(head) == allowed) {
		return throttlekit.Decision{}, fmt.Errorf("the database's form of %s decided %q, the core %+v", t.Name(), reply, d)
	}
	return d, nil
}

// check is one check in one round trip.
func (s *Store) check(ctx context.Context, key string, c call, t throttlekit.Transition, cost float64) (d throttlekit.Decision, err error) {
	args := c.parameters(key, s.instant(), cost)
	d, err = s.checkOnce(ctx, s.functions[c.kind].call, args, t, cost)
	if errors.Is(err, errUnsuited) || code(err) == serializationFailure {
		s.explicit.Store(true)
		d, err = s.checkOnce(ctx, s.functions[c.kind].call, args, t, cost)
	}
	return d, err
}

func (s *Store) checkOnce(
	ctx context.Context, sql string, args []any, t throttlekit.Transition, cost float64,
) (d throttlekit.Decision, err error) {
	var reply string
	if !s.explicit.Load() {
		reply, err = s.queryText(ctx, sql, args)
	} else {
		err = s.roundTrip(ctx, func(b *pgx.Batch) {
			b.Queue(lockAndNote, args[:1])
			b.Queue(sql, args...).QueryRow(func(row pgx.Row) error { return row.Scan(&reply) })
		})
	}
	if err != nil {
		return throttlekit.Decision{}, err
	}
	return decide(reply, t, cost)
}

// queryText reads one text. It takes the bytes as they come, since this is the hot path.
func (s *Store) queryText(ctx context.Context, sql string, args []any) (text string, err error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return "", err
	}
	if rows.Next() {
		text = string(rows.RawValues()[0])
	}
	rows.Close()
	return text, rows.Err()
}

// leftToCore reports whether a function left its check to the core. One that somebody has
// dropped is looked for, and created, before the next operation.
func (s *Store) leftToCore(err error) bool {
	if code(err) == undefinedFunction {
		s.schema.ready.Store(false)
	}
	return needsCoreAfter(err)
}
