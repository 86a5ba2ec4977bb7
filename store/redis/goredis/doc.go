// Package goredis keeps the limits of a fleet in Redis by way of a go-redis client that the
// program has already.
//
//	store, err := goredis.New(client, goredis.Config{Prefix: "shop"})
//	...
//	limiter, err := throttlekit.NewLimiter(throttlekit.GCRA{Limit: 100, Period: time.Minute}, throttlekit.WithStore(store))
//
// It is the store of package redisstore, with the same scripts, layouts and promises, and
// programs that use either share their limits. A program that has no client yet is better off
// with redisstore, which needs about half of the time for each check under load.
//
// Scripts are never sent twice, whatever MaxRetries the client has. Callers have their answer by
// the deadline also if the client does not heed contexts; set its ContextTimeoutEnabled to spare
// a goroutine for each call. Single servers, Sentinel, Clusters and Rings work; in All and
// Any, the keys must share a hash tag on a Cluster or a Ring.
package goredis
