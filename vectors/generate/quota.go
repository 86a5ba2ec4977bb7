package main

import (
	"maps"

	"github.com/throttlekit/throttlekit-go/vectors"
)

// Instants of the calendar, in epoch milliseconds.
const (
	feb29 = 1_709_164_800_000 // 2024-02-29T00:00:00Z, a Thursday
	mar01 = 1_709_251_200_000 // 2024-03-01T00:00:00Z
	noon  = 1_709_210_096_000 // 2024-02-29T12:34:56Z

	mar2100 = 4_107_542_400_000 // 2100-03-01T00:00:00Z, the day after 02-28
	jan2025 = 1_735_689_600_000 // 2025-01-01T00:00:00Z
)

func quota() []timeline {
	of := func(name string, limit float64, cadence string, more vectors.Options, steps ...[]step) timeline {
		options := vectors.Options{"limit": limit, "resetCadence": cadence}
		maps.Copy(options, more)
		return timeline{name, "quota", options, sequence(steps...)}
	}
	// around checks just before, at and just after each instant.
	around := func(instants ...int64) []step {
		var steps []step
		for _, t := range instants {
			steps = append(steps, each(t, 1, -1, 0, 1)...)
		}
		return steps
	}
	type opts = vectors.Options
	return []timeline{
		of("month-leap-february", 3, "calendar-month", nil, around(feb29), at(noon, 2, 1), around(mar01)),
		of("month-february-2100-has-28-days", 3, "calendar-month", nil, at(mar2100-28*day, 1), around(mar2100-day, mar2100)),
		of("month-turn-of-the-year", 2, "calendar-month", nil, at(jan2025-31*day, 2, 1), around(jan2025)),
		of("month-east-of-utc", 2, "calendar-month", opts{"offsetMinutes": 330.},
			around(1_709_231_400_000), at(1_711_909_799_999, 1, 1), at(1_711_909_800_000, 2),
		),
		of("month-west-of-utc", 2, "calendar-month", opts{"offsetMinutes": -300.}, around(mar01, mar01+5*hour)),
		of("month-from-zero", 2, "calendar-month", nil, at(0, 1, 1, 1), at(31*day-1, 1), at(31*day, 1)),
		of("month-cost-above-limit", 5, "calendar-month", nil, at(noon, 6, 5, 6), at(mar01, 6, 5)),
		of("week-from-monday-by-default", 2, "calendar-week", nil, at(noon, 2), around(1_709_510_400_000, 1_709_510_400_000+7*day)),
		of("week-from-sunday", 2, "calendar-week", opts{"weekStartsOn": 0.}, at(noon, 2), around(1_709_424_000_000)),
		of("week-from-saturday", 2, "calendar-week", opts{"weekStartsOn": 6.}, at(noon, 2), around(1_709_337_600_000)),
		of("week-from-thursday-from-zero", 2, "calendar-week", opts{"weekStartsOn": 4.}, at(0, 1, 1, 1), around(7*day)),
		of("week-that-began-before-the-epoch", 2, "calendar-week", nil, at(0, 1, 1, 1), around(4*day)),
		of("week-far-east-of-utc", 2, "calendar-week", opts{"offsetMinutes": 840.}, at(noon, 2), around(1_709_510_400_000-14*hour)),
		of("day", 2, "calendar-day", nil, at(noon, 2), around(mar01)),
		of("day-west-of-utc", 2, "calendar-day", opts{"offsetMinutes": -300.}, at(1_735_614_000_000, 2), around(1_735_534_800_000+day)),
		of("day-far-west-of-utc", 2, "calendar-day", opts{"offsetMinutes": -840.}, at(mar01, 2), around(mar01+14*hour)),
		of("day-from-zero", 2, "calendar-day", nil, at(0, 1, 1, 1), around(day)),
		of("day-that-began-before-the-epoch", 2, "calendar-day", opts{"offsetMinutes": 330.}, at(0, 1, 1, 1), around(18*hour+30*minute)),
		of("day-backward-clock", 3, "calendar-day", nil, at(mar01, 2), at(feb29, 1, 1), at(noon, 1), at(mar01+1, 1), at(mar01+day, 3)),
		of("fixed", 4, "fixed", opts{"periodMs": 90. * minute}, at(epoch, 3, 2), around(epoch-epoch%(90*minute)+90*minute)),
		of("fixed-anchor", 2, "fixed", opts{"periodMs": 1. * hour, "anchor": 1_234_567.},
			around(1_234_567+471_000*hour, 1_234_567+471_001*hour),
		),
		of("fixed-anchor-before-the-epoch", 2, "fixed", opts{"periodMs": 1000., "anchor": -250.}, around(epoch+750, epoch+1750)),
		of("fixed-anchor-in-the-future", 2, "fixed", opts{"periodMs": 7. * second, "anchor": 4_000_000_000_003.},
			around(4_000_000_000_003-7*second, 4_000_000_000_003),
		),
		of("fixed-anchor-ahead-of-a-clock-near-zero", 2, "fixed", opts{"periodMs": 1. * minute, "anchor": 1000.},
			at(500, 1, 1, 1), around(1000),
		),
		of("fixed-fractional-window", 2, "fixed", opts{"periodMs": 333.5}, at(epoch, 1, 1), each(epoch, 1, 212, 213, 214, 546, 547)),
		of("fixed-backward-clock", 3, "fixed", opts{"periodMs": 1. * second},
			at(epoch+1500, 2), at(epoch+500, 1, 1), at(epoch+1999, 1), at(epoch+2000, 3),
		),
		of("fixed-fractional-cost", 2, "fixed", opts{"periodMs": 1. * minute}, at(epoch, 0.5, 1.25, 0.5, 0.25)),
		of("rolling", 10, "rolling", opts{"periodMs": 1. * day},
			at(epoch, 6), at(epoch+12*hour, 4, 1), each(epoch, 2, day, day+hour, day+2*hour, day+12*hour),
		),
		of("rolling-buckets", 10, "rolling", opts{"periodMs": 28. * day, "buckets": 4.},
			at(epoch, 7), each(epoch, 3, 7*day, 27*day, 28*day, 30*day, 35*day),
		),
		of("random-day", 40, "calendar-day", opts{"offsetMinutes": 60.}, random("quota day", 4*hour, 9)),
		of("random-rolling", 25, "rolling", opts{"periodMs": 1. * hour, "buckets": 6.}, random("quota rolling", 20*minute, 9)),
	}
}
