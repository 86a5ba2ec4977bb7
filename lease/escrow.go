package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// EscrowPrefix is what the keys of regional escrows begin with if nothing else is given.
const EscrowPrefix = "tk:l2"

// escrow holds units of one coordinator for the processes of a region, on a store of the
// region. Its record has the balance in A, when it expires on the region's clock in B, and
// the end of the coordinator's window that it came from in Extra.
type escrow struct {
	store  throttlekit.Store
	prefix string
}

// escrowState is the text form of a record.
type escrowState struct {
	Balance float64 `json:"balance"`
	Expires float64 `json:"expiresAt"`
	Source  int64   `json:"source"`
}

type escrowCodec struct{}

func (escrowCodec) Encode(rec throttlekit.Record) ([]byte, error) {
	source, _ := rec.Extra.(int64)
	return json.Marshal(escrowState{Balance: rec.A, Expires: rec.B, Source: source})
}

func (escrowCodec) Decode(text []byte) (throttlekit.Record, error) {
	var s escrowState
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&s)
	if err == nil && d.More() {
		err = errors.New("trailing data")
	}
	if err != nil {
		return throttlekit.Record{}, fmt.Errorf("lease: corrupt escrow record: %w", err)
	}
	return throttlekit.Record{A: s.Balance, B: s.Expires, Extra: s.Source}, nil
}

// escrowLease takes up to cost units, and none if there are fewer than least. Whatever it
// decides, ResetAtMillis less RetryAfterMillis is the store's time.
type escrowLease struct {
	escrowCodec

	least float64
}

func (escrowLease) Name() string { return "escrowLease" }

func (e escrowLease) Apply(rec throttlekit.Record, now int64, cost float64) (throttlekit.Record, throttlekit.Decision, int64) {
	lasts := int64(rec.B) - now
	granted := min(cost, rec.A)
	if lasts <= 0 || granted < max(1, e.least) {
		return rec, throttlekit.Decision{ResetAtMillis: now + 1, RetryAfterMillis: 1}, 0
	}
	rec.A -= granted
	return rec, throttlekit.Decision{
		Allowed: true, Remaining: int64(granted), ResetAtMillis: int64(rec.B), RetryAfterMillis: lasts,
	}, lasts
}

// escrowFill adds cost units that expire on the region's clock and came from a window of
// the coordinator. Units of an older window make room, and never the other way round.
type escrowFill struct {
	escrowCodec

	source, expires int64
}

func (escrowFill) Name() string { return "escrowFill" }

func (f escrowFill) Apply(rec throttlekit.Record, now int64, cost float64) (throttlekit.Record, throttlekit.Decision, int64) {
	balance, expires := cost, f.expires
	source, _ := rec.Extra.(int64)
	if source == f.source && rec.A > 0 && int64(rec.B) > now {
		balance, expires = balance+rec.A, min(expires, int64(rec.B))
	}
	if expires <= now || source > f.source {
		return rec, throttlekit.Decision{ResetAtMillis: now + 1, RetryAfterMillis: 1}, 0
	}
	next := throttlekit.Record{A: balance, B: float64(expires), Extra: f.source}
	return next, throttlekit.Decision{Allowed: true, Remaining: int64(balance), ResetAtMillis: expires}, expires - now
}

// lease takes what the region has. now is a lower bound of the region's time when the
// answer was there.
func (e *escrow) lease(ctx context.Context, key string, least, wants int64) (g Grant, now int64, err error) {
	d, err := e.store.Apply(ctx, e.prefix+key, escrowLease{least: float64(least)}, float64(wants))
	if err != nil {
		return Grant{}, 0, err
	}
	if g = grantOf(d); g.Units > 0 {
		g.Lasts = g.ResetsIn
	}
	return g, d.ResetAtMillis - d.RetryAfterMillis, nil
}

// fill puts units by that may be used for a time after the region's clock stood at since.
func (e *escrow) fill(ctx context.Context, key string, units, source, since int64, lasts time.Duration) error {
	_, err := e.store.Apply(ctx, e.prefix+key, escrowFill{source: source, expires: since + usable(lasts)}, float64(units))
	return err
}
