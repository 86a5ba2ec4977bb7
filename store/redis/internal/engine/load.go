package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/throttlekit/throttlekit-go"
)

// Load implements [throttlekit.Store]. Record and time are one view of the server.
func (s *Store) Load(ctx context.Context, key string, t throttlekit.Transition) (throttlekit.Record, int64, error) {
	inner, cancel, err := s.begin(ctx)
	if err != nil {
		return throttlekit.Record{}, 0, err
	}
	defer cancel()
	rec, now, err := s.load(inner, s.prefix+key, t)
	if err != nil {
		return throttlekit.Record{}, 0, s.explain(ctx, err)
	}
	return rec, now, nil
}

func (s *Store) load(ctx context.Context, key string, t throttlekit.Transition) (throttlekit.Record, int64, error) {
	plan, layout := s.plans.of(t), stringLayout
	if plan != nil {
		layout = plan.kind.layout
	}
	if layout == "" {
		return throttlekit.Record{}, 0, fmt.Errorf("%w: the record of a %s transition can only be read by its script",
			throttlekit.ErrUnsupported, t.Name())
	}
	texts, now, err := s.read(ctx, layout, key)
	if err != nil {
		return throttlekit.Record{}, 0, err
	}
	rec, err := decode(t, plan, layout, texts)
	return rec, now, err
}

// read returns what keys hold, in the form of the script, and the time.
func (s *Store) read(ctx context.Context, layout layout, key string, keys ...string) ([]string, int64, error) {
	reply, err := s.eval(ctx, Call{Script: scriptLoad, Key: key, Keys: keys, Args: []string{string(layout)}})
	if err != nil {
		return nil, 0, err
	}
	if len(reply.Texts) < 2 || layout == stringLayout && len(reply.Texts) != len(keys)+3 {
		return nil, 0, errReply
	}
	texts := reply.Texts[2:]
	if s.config.Clock != nil {
		return texts, s.config.Clock.NowMillis(), nil
	}
	seconds, errSeconds := strconv.ParseInt(reply.Texts[0], 10, 64)
	micros, errMicros := strconv.ParseInt(reply.Texts[1], 10, 64)
	if errSeconds != nil || errMicros != nil {
		return nil, 0, errReply
	}
	return texts, seconds*1000 + micros/1000, nil
}

// decode reads a record from a layout by way of the transition's own text form.
func decode(t throttlekit.Transition, p *plan, layout layout, texts []string) (throttlekit.Record, error) {
	switch {
	case layout == stringLayout:
		return decodeText(t, p, texts[0])
	case len(texts) == 0:
		return throttlekit.Record{}, nil
	case len(texts)%2 != 0:
		return throttlekit.Record{}, errReply
	}
	var text []byte
	var err error
	switch {
	case layout == zsetLayout:
		text, err = stampsText(texts)
	case p.kind == kindHeartbeat:
		text, err = fieldsText(texts)
	case p.pair != nil:
		text, err = pairText(p.pair, texts)
	default:
		text, err = ringText(p.slots, texts)
	}
	if err != nil || text == nil {
		return throttlekit.Record{}, err
	}
	return decodeJSON(t, text)
}

func decodeJSON(t throttlekit.Transition, text []byte) (throttlekit.Record, error) {
	rec, err := t.Decode(text)
	if err != nil {
		return throttlekit.Record{}, &corruptError{err}
	}
	return rec, nil
}

// decodeText reads a string, which stands behind a "=" if there is one.
func decodeText(t throttlekit.Transition, p *plan, text string) (throttlekit.Record, error) {
	held, ok := strings.CutPrefix(text, "=")
	if !ok {
		return throttlekit.Record{}, nil
	}
	if p == nil { // a record that the transition has encoded itself
		return decodeJSON(t, []byte(held))
	}
	number, err := appendNumber(nil, held)
	if err != nil {
		return throttlekit.Record{}, err
	}
	return decodeJSON(t, number)
}

// appendNumber writes as JSON a number that is stored as Redis or Lua write it.
func appendNumber(b []byte, text string) ([]byte, error) {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
		return nil, &corruptError{errors.New("a field is not a finite number")}
	}
	return strconv.AppendFloat(b, x, 'g', -1, 64), nil
}

// pairText makes {"name":number,"name":number} of a hash. With either missing, there is no record.
func pairText(fields []field, texts []string) ([]byte, error) {
	b := []byte{'{'}
	for i, f := range fields {
		value, ok := lookUp(texts, f.redis)
		if !ok {
			return nil, nil
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendQuote(b, f.json), ':')
		var err error
		if b, err = appendNumber(b, value); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func lookUp(texts []string, name string) (string, bool) {
	for i := 0; i < len(texts); i += 2 {
		if texts[i] == name {
			return texts[i+1], true
		}
	}
	return "", false
}

// fieldsText makes {"field":"value",…} of a hash.
func fieldsText(texts []string) ([]byte, error) {
	fields := make(map[string]string, len(texts)/2)
	for i := 0; i < len(texts); i += 2 {
		fields[texts[i]] = texts[i+1]
	}
	return json.Marshal(fields)
}

// stampsText makes [stamp,…] of a sorted set's members and scores.
func stampsText(texts []string) ([]byte, error) {
	b := []byte{'['}
	for i := 1; i < len(texts); i += 2 {
		if i > 1 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendNumber(b, texts[i]); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

// ringText makes {"i":[tick,…],"n":[count,…]} of a hash whose field p holds "tick:count". A
// slot that does not own its tick was left by another number of buckets and is empty.
func ringText(slots int, texts []string) ([]byte, error) {
	ticks, counts := make([]string, slots), make([]string, slots)
	for i := 0; i < len(texts); i += 2 {
		tickText, countText, ok := strings.Cut(texts[i+1], ":")
		tick, err := strconv.ParseFloat(tickText, 64)
		if !ok || err != nil || math.IsInf(tick, 0) || math.IsNaN(tick) {
			return nil, &corruptError{errors.New("a slot is not of the form tick:count")}
		}
		slot, err := strconv.Atoi(texts[i])
		if err == nil && tick >= 0 && float64(slot) == math.Mod(tick, float64(slots)) {
			ticks[slot], counts[slot] = tickText, countText
		}
	}
	b := append([]byte(nil), `{"i":[`...)
	b, err := appendRing(b, ticks, "-1")
	if err != nil {
		return nil, err
	}
	b = append(b, `],"n":[`...)
	if b, err = appendRing(b, counts, "0"); err != nil {
		return nil, err
	}
	return append(b, `]}`...), nil
}

func appendRing(b []byte, texts []string, empty string) ([]byte, error) {
	for i, text := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		if text == "" {
			text = empty
		}
		var err error
		if b, err = appendNumber(b, text); err != nil {
			return nil, err
		}
	}
	return b, nil
}
