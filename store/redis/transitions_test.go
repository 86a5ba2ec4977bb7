package redisstore_test

import (
	"encoding/json"

	"github.com/throttlekit/throttlekit-go"
)

// tally is a transition that no script knows: it counts costs up to a limit.
type tally struct {
	limit float64
	ttl   int64
}

func (tally) Name() string { return "tally" }

func (c tally) Apply(rec throttlekit.Record, now int64, cost float64) (throttlekit.Record, throttlekit.Decision, int64) {
	if rec.A+cost > c.limit {
		return rec, throttlekit.Decision{Limit: int64(c.limit), Remaining: int64(c.limit - rec.A), RetryAfterMillis: 1}, 0
	}
	rec.A += cost
	d := throttlekit.Decision{Allowed: true, Limit: int64(c.limit), Remaining: int64(c.limit - rec.A), ResetAtMillis: now}
	return rec, d, c.ttl
}

func (tally) Encode(rec throttlekit.Record) ([]byte, error) { return json.Marshal(rec.A) }

func (tally) Decode(text []byte) (rec throttlekit.Record, err error) {
	return rec, json.Unmarshal(text, &rec.A)
}

// double embeds a rule of the core and charges twice the cost, which its script would not.
type double struct{ throttlekit.Rule }

func (d *double) Apply(rec throttlekit.Record, now int64, cost float64) (throttlekit.Record, throttlekit.Decision, int64) {
	return d.Rule.Apply(rec, now, 2*cost)
}
