package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/throttlekit/throttlekit-go/store/dynamodb/dynamotest"
	"github.com/throttlekit/throttlekit-go/store/postgres/pgtest"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// storeCommands are what the scripts know about stores.
//
//	redis              start a Redis; sets $REDIS to its host:port
//	redisdown          kill it
//	rediskeys [KEY...] it has these keys and no others
//	postgres           start a PostgreSQL; sets $POSTGRES to its URL
//	postgresdown       kill it
//	dynamodb           start a stand-in for DynamoDB; sets $DYNAMODB to its URL
var storeCommands = map[string]func(*testscript.TestScript, bool, []string){
	"redis": func(ts *testscript.TestScript, _ bool, _ []string) {
		server, err := redistest.Start(context.Background(), redistest.Options{})
		ts.Check(err)
		ts.Defer(func() { _ = server.Close() })
		ts.Setenv("REDIS", server.Addr)
		*ts.Value(theRedis{}).(**redistest.Server) = server
	},
	"redisdown": func(ts *testscript.TestScript, _ bool, _ []string) {
		ts.Check((*ts.Value(theRedis{}).(**redistest.Server)).Kill())
	},
	"rediskeys": func(ts *testscript.TestScript, _ bool, want []string) {
		reply, err := (*ts.Value(theRedis{}).(**redistest.Server)).Do(context.Background(), "KEYS", "*")
		ts.Check(err)
		var got []string
		for _, key := range reply.([]any) {
			got = append(got, fmt.Sprint(key))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			ts.Fatalf("Redis has the keys %q, want %q", got, want)
		}
	},
	"postgres": func(ts *testscript.TestScript, _ bool, _ []string) {
		server, err := pgtest.Start()
		ts.Check(err)
		ts.Defer(func() { _ = server.Stop() })
		ts.Setenv("POSTGRES", server.URL())
		*ts.Value(thePostgres{}).(**pgtest.Server) = server
	},
	"dynamodb": func(ts *testscript.TestScript, _ bool, _ []string) {
		server, err := dynamotest.Start()
		ts.Check(err)
		ts.Defer(func() { _ = server.Stop() })
		ts.Setenv("DYNAMODB", server.URL())
	},
	"postgresdown": func(ts *testscript.TestScript, _ bool, _ []string) {
		ts.Check((*ts.Value(thePostgres{}).(**pgtest.Server)).Kill())
	},
}

// theRedis and thePostgres are the keys of the servers that a script has started.
type (
	theRedis    struct{}
	thePostgres struct{}
)
