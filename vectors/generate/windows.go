package main

import "github.com/throttlekit/throttlekit-go/vectors"

func fixedWindow() []timeline {
	of := func(name string, limit, windowMs float64, steps ...[]step) timeline {
		options := vectors.Options{"limit": limit, "windowMs": windowMs}
		return timeline{name, "fixedWindow", options, sequence(steps...)}
	}
	return []timeline{
		of("fill-and-roll", 5, second, repeat(epoch, 6), each(epoch, 1, 500, 999, 1000, 1001)),
		of("edges", 2, minute, each(epoch, 1, 19_999, 20_000, 79_999, 79_999, 79_999, 80_000, 80_000, 80_000, 80_001, 140_000)),
		of("twice-the-limit-around-an-edge", 3, second, at(epoch+999, 3, 1), at(epoch+1000, 3, 1)),
		of("cost-above-one", 10, second, at(epoch, 4, 4, 4, 2, 1), at(epoch+1000, 10)),
		of("cost-above-limit", 5, second, at(epoch, 6, 5, 6, 1), at(epoch+1000, 6, 100, 5)),
		of("from-zero", 2, second, at(0, 1, 1, 1), each(0, 1, 1, 999, 1000, 1001, 2000)),
		of("near-zero", 1, 10, each(0, 1, 1, 2, 9, 10, 11, 20)),
		of("backward-clock-within-a-window", 3, second, at(epoch+900, 1), at(epoch+100, 1, 1, 1), at(epoch+1000, 1)),
		// Windows only roll forward: a step back stays in the window that has been reached.
		of("backward-clock-across-windows", 3, second,
			at(epoch+2500, 2), at(epoch+1500, 1, 1), at(epoch, 1), at(epoch+2999, 1), at(epoch+3000, 3), at(epoch+2999, 1)),
		of("fractional-window", 3, 333.5, at(epoch, 2), each(epoch, 1, 100, 212, 213, 214, 400, 546, 547), at(epoch+547, 3)),
		of("window-of-a-millisecond", 2, 1, repeat(epoch, 3), repeat(epoch+1, 3), at(epoch+3, 2)),
		of("window-longer-than-a-day", 4, 36*hour, at(epoch, 4, 1), each(epoch, 1, day, 2*day, 2*day, 4*day)),
		of("large-epoch", 2, hour, repeat(253_402_300_799_999, 3), each(253_402_300_799_999, 1, 1, 2)),
		of("long-idle", 5, second, at(epoch, 5, 1), at(epoch+365*day, 5, 1), at(epoch+366*day, 1)),
		of("huge-limit", 9_007_199_254_740_991, second, at(epoch, 9e15, 7_199_254_740_991, 1), at(epoch+1000, 1)),
		of("limit-of-one", 1, second, each(epoch, 1, 0, 1, 999, 1000, 1000)),
		of("fractional-cost", 2, second, at(epoch, 0.5, 0.25, 1.25, 0.125), at(epoch+1000, 1.5, 0.75, 0.5)),
		of("random", 17, second, random("fixed", 400, 6)),
	}
}

func slidingWindow() []timeline {
	of := func(name string, limit, windowMs, buckets float64, steps ...[]step) timeline {
		options := vectors.Options{"limit": limit, "windowMs": windowMs, "buckets": buckets}
		return timeline{name, "slidingWindow", options, sequence(steps...)}
	}
	noBuckets := of("ten-buckets-by-default", 10, second, 0, at(epoch, 10, 1), each(epoch, 1, 99, 100, 999, 1000, 1010, 1050, 1099, 1100))
	delete(noBuckets.options, "buckets")
	return []timeline{
		noBuckets,
		of("three-buckets", 20, second, 3, at(epoch, 12), at(epoch+400, 6), at(epoch+700, 3), each(epoch, 4, 1000, 1100, 1200, 1334)),
		of("one-bucket", 10, second, 1, at(epoch, 10, 1), each(epoch, 1, 999, 1000, 1099, 1100, 1101, 1500, 2000)),
		of("sixty-buckets", 30, minute, 60,
			at(epoch, 10), each(epoch, 10, 15_000, 30_000), each(epoch, 5, 59_999, 60_000, 60_500, 61_000, 75_500, 76_000),
		),
		of("thousand-buckets", 3, 10*second, 1000, at(epoch, 3, 1), each(epoch, 1, 1, 9_999, 10_000, 10_003, 10_007, 10_010)),
		of("bucket-edges", 4, second, 4,
			at(epoch+249, 1), at(epoch+250, 1), at(epoch+499, 1), at(epoch+500, 1, 1),
			each(epoch, 1, 1000, 1125, 1249, 1250, 1500, 1501),
		),
		of("cost-above-one", 10, second, 10, at(epoch, 4, 4, 4, 2), each(epoch, 3, 1000, 1050, 1075, 1100)),
		of("cost-above-limit", 5, second, 10, at(epoch, 6, 5, 6, 1), each(epoch, 6, 1000, 1100, 5000), at(epoch+5000, 5)),
		of("from-zero", 4, second, 10, at(0, 1, 3, 1), each(0, 1, 1, 99, 100, 999, 1000, 1050, 1100)),
		of("near-zero", 2, 10, 5, each(0, 1, 1, 2, 3, 9, 11, 12, 13, 14)),
		// Sub-windows only roll forward: a step back counts in the newest one reached.
		of("backward-clock-within-a-bucket", 6, second, 2, at(epoch+400, 4), at(epoch+100, 1, 2), at(epoch+500, 1, 1)),
		of("backward-clock-across-buckets", 6, second, 2,
			at(epoch+1600, 4), at(epoch+700, 2, 1), at(epoch, 1), at(epoch+1999, 1), at(epoch+2000, 2), at(epoch+2100, 1),
		),
		of("backward-clock-outlives-its-own-window", 6, second, 2,
			at(epoch+1600, 4), at(epoch+700, 2), each(epoch, 1, 2250, 2500, 2750), at(epoch+3000, 5),
		),
		of("fractional-bucket", 9, second, 7, at(epoch, 3), each(epoch, 2, 142, 143, 285, 286, 1000, 1100, 1142, 1143)),
		of("fractional-window", 5, 333.5, 4, at(epoch, 3), each(epoch, 1, 83, 84, 333, 334, 375, 400, 417)),
		of("window-longer-than-a-day", 12, 7*day, 7, at(epoch, 6), each(epoch, 3, day, 2*day, 3*day, 7*day, 7*day+12*hour, 8*day, 9*day)),
		of("large-epoch", 3, hour, 6, repeat(253_402_300_799_999, 4), each(253_402_300_799_999, 1, 1, hour, hour+5*minute, 2*hour)),
		of("long-idle", 5, second, 10, at(epoch, 5, 1), at(epoch+365*day, 5, 1), at(epoch+366*day, 1)),
		of("huge-limit", 1e15, second, 8, at(epoch, 1e15, 1), each(epoch, 1e14, 1000, 1013, 1125)),
		of("fractional-cost", 2, second, 4, at(epoch, 0.5, 0.25, 1.25, 0.125), each(epoch, 0.5, 1000, 1050, 1063, 1125)),
		of("random", 31, second, 5, random("sliding", 400, 10)),
		of("random-odd-buckets", 23, minute, 13, random("sliding odd", 9*second, 7)),
	}
}

func slidingWindowLog() []timeline {
	of := func(name string, limit, windowMs float64, steps ...[]step) timeline {
		options := vectors.Options{"limit": limit, "windowMs": windowMs}
		return timeline{name, "slidingWindowLog", options, sequence(steps...)}
	}
	return []timeline{
		of("fill-and-slide", 3, second, each(epoch, 1, 0, 100, 200, 300, 999, 1000, 1000, 1099, 1100, 1200, 1201)),
		of("edge-expires-at-equality", 1, second, each(epoch, 1, 0, 1, 999, 1000, 1999, 2000, 2001)),
		of("cost-above-one", 5, second,
			at(epoch, 3), at(epoch+100, 2, 1), at(epoch+200, 4), each(epoch, 3, 999, 1000), each(epoch, 2, 1099, 1100),
		),
		of("cost-above-limit", 5, second, at(epoch, 9, 3, 9), at(epoch+100, 9), at(epoch+1000, 9, 5)),
		of("wait-for-several-stamps", 4, second, each(epoch, 1, 0, 10, 20, 30), at(epoch+40, 1, 2, 3, 4, 5)),
		of("from-zero", 2, second, at(0, 1, 1, 1), each(0, 1, 1, 999, 1000, 1000, 1001)),
		of("near-zero", 1, 10, each(0, 1, 1, 2, 10, 11, 12, 21)),
		// A step back logs the newest time seen, so stamps stay in order.
		of("backward-clock", 4, second, at(epoch+500, 2), at(epoch, 1, 2), each(epoch, 1, 600, 1000, 1499, 1500), at(epoch+1500, 3, 2)),
		// What was logged while the clock was behind lives as long as the newest time seen.
		of("backward-clock-outlives-its-own-window", 3, second,
			at(epoch+500, 2), at(epoch, 1), each(epoch, 1, 1000, 1499, 1500), at(epoch+1500, 2),
		),
		of("backward-clock-beyond-the-window", 3, second,
			at(epoch+5000, 3), at(epoch, 1), each(epoch, 1, 5999, 6000), at(epoch+1000, 2, 1), at(epoch+7000, 3),
		),
		of("fractional-window", 2, 333.5, at(epoch, 1, 1, 1), each(epoch, 1, 333, 334, 335, 667, 668)),
		of("window-longer-than-a-day", 3, 30*day, each(epoch, 1, 0, day, 2*day, 3*day, 30*day-1, 30*day, 31*day)),
		of("large-epoch", 2, hour, repeat(253_402_300_799_999, 3), each(253_402_300_799_999, 1, 3_599_999, 3_600_000)),
		of("long-idle", 5, second, at(epoch, 5, 1), at(epoch+365*day, 5, 1), at(epoch+366*day, 1)),
		of("thousand-units-at-once", 1000, second, at(epoch, 999, 1, 1), at(epoch+1, 500), at(epoch+1000, 1000, 1)),
		// A fractional cost is charged as the next whole number.
		of("fractional-cost", 4, second, at(epoch, 0.1, 1.5, 0.5, 0.5), each(epoch, 2.5, 999, 1000)),
		of("random", 19, second, random("log", 400, 6)),
	}
}
