package throttlekit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The text form of records is JSON with numbers written as ECMAScript writes them, so
// that processes in other languages read and write the same text. Specification: §4.1.

// number is binary64 whose JSON form is ECMAScript's: encoding/json agrees but for negative zero.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	if n == 0 {
		return []byte("0"), nil
	}
	return json.Marshal(float64(n))
}

func encode(v any) ([]byte, error) { return json.Marshal(v) }

var errMissing = errors.New("a field is missing")

func corrupt(name string, err error) error {
	return fmt.Errorf("throttlekit: corrupt %s record: %w", name, err)
}

// unmarshal reads text strictly: unknown fields and trailing data mark a foreign record.
func unmarshal(name string, text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return corrupt(name, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return corrupt(name, errors.New("trailing data"))
	}
	return nil
}

// encodeScalar and decodeScalar serve the transitions whose record is one number.
func encodeScalar(rec Record) ([]byte, error) { return number(rec.A).MarshalJSON() }

func decodeScalar(name string, text []byte) (Record, error) {
	var a *float64
	if err := unmarshal(name, text, &a); err != nil {
		return Record{}, err
	}
	if a == nil {
		return Record{}, corrupt(name, errMissing)
	}
	return Record{A: *a}, nil
}

// encodePair and decodePair serve the transitions whose record is two named numbers.
func encodePair(nameA, nameB string, rec Record) ([]byte, error) {
	a, err := number(rec.A).MarshalJSON()
	if err != nil {
		return nil, err
	}
	b, err := number(rec.B).MarshalJSON()
	return fmt.Appendf(nil, "{%q:%s,%q:%s}", nameA, a, nameB, b), err
}

func decodePair(name, nameA, nameB string, text []byte) (Record, error) {
	var fields map[string]*float64
	if err := unmarshal(name, text, &fields); err != nil {
		return Record{}, err
	}
	a, b := fields[nameA], fields[nameB]
	if a == nil || b == nil {
		return Record{}, corrupt(name, errMissing)
	}
	if len(fields) > 2 {
		return Record{}, corrupt(name, errors.New("unknown fields"))
	}
	return Record{A: *a, B: *b}, nil
}
