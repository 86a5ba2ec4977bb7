//go:build !race

package redisstore_test

const slow = 1
