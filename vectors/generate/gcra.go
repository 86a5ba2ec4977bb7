package main

import "github.com/throttlekit/throttlekit-go/vectors"

func gcra() []timeline {
	of := func(name string, limit, periodMs, burst float64, steps ...[]step) timeline {
		options := vectors.Options{"limit": limit, "periodMs": periodMs, "burst": burst}
		return timeline{name, "gcra", options, sequence(steps...)}
	}
	noBurst := of("burst-defaults-to-limit", 4, second, 0, repeat(epoch, 5), each(epoch, 1, 249, 250, 500))
	delete(noBurst.options, "burst")
	return []timeline{
		// An interval of 142.857… ms: rounding costs the seventh unit, and takes another path at every epoch.
		of("fractional-interval-real-epoch", 7, second, 7, repeat(epoch, 8), each(epoch, 1, 142, 143, 286, 1000, 2000)),
		of("fractional-interval-from-zero", 7, second, 7, repeat(0, 8), each(0, 1, 142, 143, 286, 1000, 2000)),
		of("three-per-second", 3, second, 3, repeat(epoch, 4), each(epoch, 1, 333, 334, 667, 668, 1000, 1001)),
		of("edge-allows-at-equality", 10, second, 10, repeat(epoch, 11), each(epoch, 1, 99, 100, 100, 199, 200)),
		noBurst,
		of("burst-below-limit", 100, minute, 5, repeat(epoch, 6), each(epoch, 1, 599, 600, 601, 1200), each(epoch, 5, 3000, 4200)),
		of("burst-above-limit", 10, second, 50,
			at(epoch, 50, 1), each(epoch, 1, 99, 100), each(epoch, 10, 1000, 1100, 2000), each(epoch, 50, 9000),
		),
		of("burst-of-one", 2, second, 1, each(epoch, 1, 0, 0, 499, 500, 999, 1000, 1499, 5000)),
		of("cost-above-one", 10, second, 10, at(epoch, 3, 3, 3, 3, 1), each(epoch, 4, 100, 300, 399, 400)),
		of("cost-above-burst", 10, second, 5, at(epoch, 6, 5, 6, 1), each(epoch, 6, 500, 10_000), at(epoch+10_000, 5, 100)),
		// A step back denies until the arrival time is reached again.
		of("backward-clock", 10, second, 5, at(5000, 5), at(4000, 1), at(5099, 1), at(5100, 1), at(0, 1), at(5200, 1)),
		of("from-zero", 5, second, 5, at(0, 1, 5, 4), each(0, 1, 1, 199, 200, 201, 400)),
		of("large-epoch", 10, minute, 10, repeat(253_402_300_799_999, 11), each(253_402_300_799_999, 1, 5999, 6000, 6001, 60_000)),
		of("largest-date", 3, second, 3, repeat(8_640_000_000_000_000, 4), each(8_640_000_000_000_000, 1, 333, 334, 400, 1000)),
		of("long-idle", 5, second, 5, at(epoch, 5, 1), at(epoch+365*day, 5, 1), at(epoch+366*day, 1)),
		of("one-per-month", 1, 31*day, 1, at(epoch, 1, 1), each(epoch, 1, day, 31*day-1, 31*day, 31*day+1)),
		of("huge-limit", 1e15, second, 1e15, at(epoch, 1e15, 1), each(epoch, 1e12, 1, 2), at(epoch+second, 1e15)),
		of("microsecond-interval", 1e6, second, 100, at(epoch, 100, 1), each(epoch, 100, 1, 2), at(epoch+2, 1)),
		of("fractional-period", 2, 333.5, 2, repeat(epoch, 3), each(epoch, 1, 166, 167, 333, 334, 667)),
		of("fractional-cost", 10, second, 2, at(epoch, 0.5, 0.25, 1.25, 0.25, 0.125), each(epoch, 0.5, 12, 13, 49, 50, 51)),
		of("random-fine", 98, hour, 5, random("gcra fine", 60*second, 6)),
		of("random-coarse", 13, second, 29, random("gcra coarse", 700, 20)),
	}
}
