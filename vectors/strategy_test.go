package vectors_test

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/vectors"
)

type opts = vectors.Options

func TestBuild(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind    string
		options vectors.Options
		want    throttlekit.Strategy
	}{
		{"gcra", opts{"limit": 7., "periodMs": 1000.}, throttlekit.GCRA{Limit: 7, Period: time.Second}},
		{"gcra", opts{"limit": 7., "periodMs": 1000., "burst": 3.}, throttlekit.GCRA{Limit: 7, Period: time.Second, Burst: 3}},
		{"tokenBucket", opts{"capacity": 5., "refillPerSec": 0.5}, throttlekit.TokenBucket{Capacity: 5, RefillPerSec: 0.5}},
		{"fixedWindow", opts{"limit": 7., "windowMs": 333.5}, throttlekit.FixedWindow{Limit: 7, Window: 333_500 * time.Microsecond}},
		{"fixedWindow", opts{"limit": 7., "windowMs": 0.1}, throttlekit.FixedWindow{Limit: 7, Window: 100 * time.Microsecond}},
		{"fixedWindow", opts{"limit": 7., "windowMs": 599_184_000_001.}, throttlekit.FixedWindow{Limit: 7, Window: 599_184_000_001 * time.Millisecond}},
		{"slidingWindow", opts{"limit": 7., "windowMs": 1000.}, throttlekit.SlidingWindow{Limit: 7, Window: time.Second}},
		{"slidingWindow", opts{"limit": 7., "windowMs": 1000., "buckets": 4.}, throttlekit.SlidingWindow{Limit: 7, Window: time.Second, Buckets: 4}},
		{"slidingWindowLog", opts{"limit": 7., "windowMs": 1000.}, throttlekit.SlidingWindowLog{Limit: 7, Window: time.Second}},
		{"quota", opts{"limit": 7., "resetCadence": "calendar-month"}, throttlekit.Quota{Limit: 7, Cadence: throttlekit.CalendarMonth, WeekStart: 1}},
		{"quota", opts{"limit": 7., "resetCadence": "calendar-week", "weekStartsOn": 0., "offsetMinutes": -90.}, throttlekit.Quota{
			Limit: 7, Cadence: throttlekit.CalendarWeek, WeekStart: 7, Offset: -90 * time.Minute,
		}},
		{"quota", opts{"limit": 7., "resetCadence": "fixed", "periodMs": 60_000., "anchor": -5.}, throttlekit.Quota{
			Limit: 7, Cadence: throttlekit.Fixed, Period: time.Minute, Anchor: -5, WeekStart: 1,
		}},
		{"quota", opts{"limit": 7., "resetCadence": "rolling", "periodMs": 60_000., "buckets": 6.}, throttlekit.Quota{
			Limit: 7, Cadence: throttlekit.Rolling, Period: time.Minute, Buckets: 6, WeekStart: 1,
		}},
	} {
		got, err := vectors.Strategy{Kind: c.kind, Options: c.options}.Build()
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %v builds %+v, %v; want %+v", c.kind, c.options, got, err, c.want)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind    string
		options vectors.Options
		message string
	}{
		{"gcra", nil, "options.limit must be given"},
		{"gcra", opts{"limit": 7.}, "options.periodMs must be given"},
		{"gcra", opts{"limit": "7", "periodMs": 1000.}, "options.limit must be a number"},
		{"gcra", opts{"limit": 7., "periodMs": 1000., "burst": 0.}, "options.burst must not be 0"},
		{"gcra", opts{"limit": 7., "periodMs": 1000., "Burst": 2.}, "options.Burst must be an option of gcra"},
		{"gcra", opts{"limit": 0., "periodMs": 1000.}, "limit must be a positive finite number"},
		{"gcra", opts{"limit": 7., "periodMs": 0.}, "period must be a positive duration"},
		{"gcra", opts{"limit": 7., "periodMs": 1. / 3}, "options.periodMs must be a whole number of nanoseconds"},
		{"gcra", opts{"limit": 7., "periodMs": 1e13}, "options.periodMs must be a whole number of nanoseconds"},
		{"gcra", opts{"limit": 7., "periodMs": math.NaN()}, "options.periodMs must be a whole number of nanoseconds"},
		{"tokenBucket", opts{"capacity": 5., "refillPerSec": -1.}, "refillPerSec must be a positive finite number"},
		{"fixedWindow", opts{"limit": 7., "windowMs": 1000., "buckets": 3.}, "options.buckets must be an option of fixedWindow"},
		{"slidingWindow", opts{"limit": 7., "windowMs": 1000., "buckets": 0.}, "options.buckets must be an integer from 1 to 100000"},
		{"slidingWindow", opts{"limit": 7., "windowMs": 1000., "buckets": 2.5}, "options.buckets must be an integer from 1 to 100000"},
		{"quota", opts{"limit": 7.}, "options.resetCadence must be given"},
		{"quota", opts{"limit": 7., "resetCadence": 5.}, "options.resetCadence must be a text"},
		{"quota", opts{"limit": 7., "resetCadence": "yearly"}, "resetCadence must be calendar-month"},
		{"quota", opts{"limit": 7., "resetCadence": "fixed"}, "period must be a positive duration"},
		{"quota", opts{"limit": 7., "resetCadence": "calendar-week", "weekStartsOn": 7.}, "options.weekStartsOn must be an integer from 0 to 6"},
		{"quota", opts{"limit": 7., "resetCadence": "calendar-day", "offsetMinutes": 841.}, "options.offsetMinutes must be an integer from -840 to 840"},
		{"quota", opts{"limit": 7., "resetCadence": "fixed", "periodMs": 5., "anchor": 0.5}, "options.anchor must be an integer"},
	} {
		_, err := vectors.Strategy{Kind: c.kind, Options: c.options}.Build()
		if !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s %v: error %v, want %q", c.kind, c.options, err, c.message)
		}
	}
	_, err := vectors.Strategy{Kind: "leakyBucket"}.Build()
	if !errors.Is(err, throttlekit.ErrUnsupported) || !strings.Contains(err.Error(), "leakyBucket") {
		t.Errorf("an unknown kind: %v", err)
	}
}
