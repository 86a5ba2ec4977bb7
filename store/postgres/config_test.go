package pgstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
)

func TestTableNames(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	for table, ok := range map[string]bool{
		"": true, "throttlekit": true, "_": true, "a1_B": true, "s.t": true, strings.Repeat("x", 63): true,
		strings.Repeat("x", 64): false, "1a": false, "a-b": false, "a b": false, `a"b`: false, "a;b": false, "a.b.c": false,
		".a": false, "a.": false, "täble": false, "a\n": false, "a'": false, "a\x00": false,
	} {
		store, err := pgstore.New(pool, pgstore.Config{Table: table})
		if (err == nil) != ok {
			t.Errorf("table %q: %v", table, err)
		}
		if err == nil {
			store.Close()
			continue
		}
		if !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), "table") {
			t.Errorf("table %q: %v", table, err)
		}
	}
}

func TestLongTableName(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	for range 2 { // the second finds what the first has created
		store := newStore(t, pool, pgstore.Config{Table: strings.Repeat("long", 15)})
		if d, err := store.Apply(t.Context(), "k", rule(t, slow), 1); err != nil || !d.Allowed {
			t.Error(d, err)
		}
	}
}

func TestInvalidConfigs(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	_, err := pgstore.New(pool, pgstore.Config{Table: "a b", Timeout: -time.Second})
	if text := fmt.Sprint(err); !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(text, "table") || !strings.Contains(text, "timeout") {
		t.Errorf("%v, want both errors", err)
	}
	if _, err := pgstore.New(nil, pgstore.Config{}); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Error(err)
	}
	for _, url := range []string{
		"", " ", "mysql://a:s3cret@b/c", "postgres://a:s3c%ret@b/c", "postgres://a:s3cret@b:port/c", "host=b password='s3cret",
		"postgres://a:s3cret@b/c?pool_max_conns=s3cret", "postgres://a:s3cret@b/c?sslmode=s3cret", "s3cret",
	} {
		_, err := pgstore.Open(url, pgstore.Config{})
		if !errors.Is(err, throttlekit.ErrInvalid) || strings.Contains(fmt.Sprintf("%v %+v", err, err), "s3c") {
			t.Errorf("%q: %v, want an error that shows no secret", url, err)
		}
	}
	if _, err := pgstore.Open("postgres://a@b/c", pgstore.Config{Table: "a b"}); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Error(err)
	}
}

func TestLongestKey(t *testing.T) {
	t.Parallel()
	store := newStore(t, newPool(t, server), pgstore.Config{Prefix: "p"})
	random := make([]byte, 2600-len("p:"))
	for i := range random {
		random[i] = byte(33 + (i*i*31+i/7)%90)
	}
	for _, s := range []throttlekit.Strategy{slow, rolls} {
		if d, err := store.Apply(t.Context(), string(random), rule(t, s), 1); err != nil || !d.Allowed {
			t.Error(d, err)
		}
		if _, err := store.Apply(t.Context(), string(random)+"x", rule(t, s), 1); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Error(err)
		}
		if err := store.Reset(t.Context(), string(random)); err != nil {
			t.Error(err)
		}
	}
}
