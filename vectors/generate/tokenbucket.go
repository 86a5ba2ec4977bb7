package main

import "github.com/throttlekit/throttlekit-go/vectors"

func tokenBucket() []timeline {
	of := func(name string, capacity, refillPerSec float64, steps ...[]step) timeline {
		options := vectors.Options{"capacity": capacity, "refillPerSec": refillPerSec}
		return timeline{name, "tokenBucket", options, sequence(steps...)}
	}
	return []timeline{
		of("drain-and-refill", 5, 1, repeat(epoch, 6), each(epoch, 1, 999, 1000, 1999, 2000, 2001), at(epoch+10*second, 5, 1)),
		of("fractional-refill", 20, 3.5, at(epoch, 18, 3), each(epoch, 3, 285, 286), each(epoch, 2, 1000, 1001, 6000)),
		of("refill-slower-than-time-to-look", 8, 0.07,
			at(epoch, 8, 1), each(epoch, 1, 14_285, 14_286, 28_571, 28_572), at(epoch+hour, 4, 5),
		),
		of("refill-of-a-tenth", 3, 0.1, at(epoch, 3), each(epoch, 1, 9_999, 10_000, 19_999, 20_000, 30_000)),
		of("refill-within-a-millisecond", 100, 1e6, at(epoch, 100, 1), each(epoch, 100, 1, 2), at(epoch+2, 1)),
		of("cost-above-capacity", 5, 1, at(epoch, 6, 5, 6, 1), each(epoch, 6, 1000, 5000, 60_000), at(epoch+minute, 5)),
		of("cost-above-one", 10, 10, at(epoch, 4, 4, 4, 2), each(epoch, 3, 100, 299, 300, 600)),
		of("edge-allows-at-equality", 4, 8, at(epoch, 4), each(epoch, 1, 124, 125, 125, 250, 374, 375)),
		of("from-zero", 4, 2, at(0, 1, 3, 1), each(0, 1, 1, 499, 500, 501, 1000)),
		of("near-zero", 2, 1000, each(0, 2, 1, 2, 3, 4, 5)),
		// The bucket remembers the latest time it has seen, so no interval refills it twice.
		of("backward-clock", 10, 10, at(epoch, 8), at(epoch-500, 1, 2), each(epoch, 2, 0, 99, 100), at(epoch-5000, 1), at(epoch+200, 1)),
		of("backward-clock-outlives-its-own-refill", 10, 10, at(epoch, 9), at(epoch-1000, 1), at(epoch+500, 6, 5)),
		of("large-epoch", 6, 2, at(253_402_300_799_999, 6, 1), each(253_402_300_799_999, 1, 499, 500, 1000, 9000)),
		of("long-idle", 5, 1, at(epoch, 5, 1), at(epoch+365*day, 5, 1), at(epoch+366*day, 1)),
		of("huge-capacity", 1e15, 1e15, at(epoch, 1e15, 1), each(epoch, 1e12, 1, 2), at(epoch+2*second, 1e15, 1)),
		of("capacity-of-one", 1, 2, each(epoch, 1, 0, 0, 499, 500, 1000, 1400)),
		of("fractional-cost", 2, 1, at(epoch, 0.5, 0.25, 1.25, 0.125), each(epoch, 0.5, 499, 500, 501, 1100)),
		of("random-slow", 28, 0.75, random("bucket slow", 4*second, 12)),
		of("random-fast", 42, 13, random("bucket fast", 200, 20)),
	}
}
