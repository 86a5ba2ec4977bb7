package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// probe decides about keys that are thrown away. Should one stay behind, it expires after a minute.
var probe = func() throttlekit.Rule {
	rule, err := throttlekit.GCRA{Limit: 1, Period: time.Minute}.Rule()
	if err != nil {
		panic(err) // it is the same every time
	}
	return rule
}()

// probeKey is a key that nobody else uses.
func probeKey() string { return "throttlekit-doctor:" + rand.Text() }

// tryOut has the store decide, remember and forget.
func tryOut(ctx context.Context, store throttlekit.Store) (err error) {
	key := probeKey()
	for _, want := range []bool{true, false} {
		d, err := store.Apply(ctx, key, probe, 1)
		switch {
		case err != nil:
			return err
		case d.Allowed != want:
			return fmt.Errorf("a limit of 1 was not kept: %+v", d)
		}
	}
	rec, _, err := store.Load(ctx, key, probe)
	switch {
	case err != nil:
		return err
	case rec == throttlekit.Record{}:
		return errors.New("a record is gone as soon as it is written")
	}
	if err := store.Reset(ctx, key); err != nil {
		return err
	}
	rec, _, err = store.Load(ctx, key, probe)
	switch {
	case err != nil:
		return err
	case rec != throttlekit.Record{}:
		return errors.New("a record is still there after its removal")
	}
	return nil
}
