package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/client"
)

// Through server and client an error keeps its meaning, and a decision every field.
func TestClientAndServerAgree(t *testing.T) {
	t.Parallel()
	broken := behaving{"broken", func(context.Context) error {
		return fmt.Errorf("%w: no route", throttlekit.ErrStoreUnavailable)
	}}
	closed := behaving{"closed", func(context.Context) error { return throttlekit.ErrClosed }}
	odd := behaving{"odd", func(context.Context) error { return errors.New("odd") }}
	inProcess := limiter(5)
	tokens := newMeter(t)
	svc := policies(t, broken, closed, odd, plain{"wide", inProcess}, meter{"tokens", tokens})
	s, stop := serve(t, svc, local())
	c, err := client.Dial(s.GRPCAddr().String(), client.WithTimeout(30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()

	for i, key := range []string{"", "k", "k", "\xff\x00", "\xff\x00", strings.Repeat("\xfe", 64<<10)} {
		got, err := c.CheckN(ctx, "wide", key, 2)
		if err != nil {
			t.Fatal(err)
		}
		after, err := inProcess.Peek(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if got != after {
			t.Errorf("check %d: got %+v, the limiter stands at %+v", i, got, after)
		}
		peeked, err := c.Peek(ctx, "wide", key)
		if err != nil || peeked != after {
			t.Errorf("peek %d: got %+v %v, want %+v", i, peeked, err, after)
		}
		forecast, err := c.Forecast(ctx, "wide", key, 1)
		if want, _ := inProcess.Forecast(ctx, key, 1); err != nil || forecast != want {
			t.Errorf("forecast %d: got %+v %v, want %+v", i, forecast, err, want)
		}
	}
	many, err := c.CheckMany(ctx, "five", []string{"a", "b", "a", "\xff"}, 3)
	if allowed := []bool{true, true, false, true}; err != nil || !slices.EqualFunc(many, allowed, func(d throttlekit.Decision, want bool) bool { return d.Allowed == want }) {
		t.Errorf("many: got %+v %v", many, err)
	}

	for i, debit := range []int64{4, 5, throttlekit.MaxSafe / 4, 1} { // the third crosses the budget
		got, err := c.Debit(ctx, "tokens", "\xff", debit)
		if err != nil {
			t.Fatal(err)
		}
		after, err := tokens.Peek(ctx, "\xff")
		if err != nil {
			t.Fatal(err)
		}
		want := after.Decision
		if i < 3 {
			want.Allowed, want.RetryAfterMillis = true, 0
		}
		if got != want || got.Allowed != (i < 3) {
			t.Errorf("debit %d: got %+v, want %+v", i, got, want)
		}
	}

	sentinels := []error{
		throttlekit.ErrInvalid, throttlekit.ErrPolicyNotFound, throttlekit.ErrUnsupported, throttlekit.ErrStoreUnavailable,
		throttlekit.ErrClosed, client.ErrUnavailable, context.Canceled, context.DeadlineExceeded,
	}
	peek := func(policy string) error { _, err := c.Peek(ctx, policy, "k"); return err }
	for _, test := range []struct {
		name string
		err  error
		want error // nil for none of the sentinels
		code codes.Code
	}{
		{"unknown policy", peek("nine"), throttlekit.ErrPolicyNotFound, codes.NotFound},
		{"unsupported", second(c.Forecast(ctx, "broken", "k", 1)), throttlekit.ErrUnsupported, codes.Unimplemented},
		{"no meter", second(c.Debit(ctx, "five", "k", 1)), throttlekit.ErrUnsupported, codes.Unimplemented},
		{"unknown meter", second(c.Debit(ctx, "nine", "k", 1)), throttlekit.ErrPolicyNotFound, codes.NotFound},
		{"long key of a meter", second(c.Debit(ctx, "tokens", strings.Repeat("k", 64<<10+1), 1)), throttlekit.ErrInvalid, codes.InvalidArgument},
		{"long key", second(c.Check(ctx, "five", strings.Repeat("k", 64<<10+1))), throttlekit.ErrInvalid, codes.InvalidArgument},
		{"store", peek("broken"), throttlekit.ErrStoreUnavailable, codes.Unavailable},
		{"closed service", peek("closed"), client.ErrUnavailable, codes.Unavailable},
		{"odd", peek("odd"), nil, codes.Internal},
	} {
		for _, sentinel := range sentinels {
			if got, want := errors.Is(test.err, sentinel), errors.Is(sentinel, test.want); got != want {
				t.Errorf("%s: %v: is %q: got %v, want %v", test.name, test.err, sentinel, got, want)
			}
		}
		if st, ok := status.FromError(test.err); !ok || st.Code() != test.code {
			t.Errorf("%s: %v: got code %v, want %v", test.name, test.err, st.Code(), test.code)
		}
	}
	for _, cost := range []int64{0, -1, math.MinInt64, throttlekit.MaxSafe + 1, math.MaxInt64} {
		if _, err := c.CheckN(ctx, "five", "k", cost); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("cost %d: got %v, want ErrInvalid", cost, err)
		}
	}

	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := c.Check(ctx, "five", "k"); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("after the server left: got %v, want ErrUnavailable", err)
	}
}

func second[T any](_ T, err error) error { return err }
