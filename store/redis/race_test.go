//go:build race

package redisstore_test

// slow is how much slower the race detector makes everything.
const slow = 3
