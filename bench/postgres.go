//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
	"github.com/throttlekit/throttlekit-go/store/postgres/pgtest"
)

const postgresConns = 16

// postgresRows measure a real PostgreSQL on this machine, which shares its CPUs with the callers.
func postgresRows(s measure.Schedule) []report.Row {
	s.Slice, s.Patience = s.Slice*storeSlice, 1 // server and callers stall one another
	srv, err := pgtest.Start()
	if err != nil {
		return failedRow(err)
	}
	defer func() { _ = srv.Stop() }()
	pool, err := pgxpool.New(context.Background(), fmt.Sprintf("%s?pool_max_conns=%d", srv.URL(), postgresConns))
	if err != nil {
		return failedRow(err)
	}
	defer pool.Close()
	store, err := pgstore.New(pool, pgstore.Config{Timeout: time.Minute})
	if err != nil {
		return failedRow(err)
	}
	defer func() { _ = store.Close() }()
	limiter, err := throttlekit.NewLimiter(throttlekit.GCRA{Limit: 1e9, Period: time.Hour}, throttlekit.WithStore(store))
	if err != nil {
		return failedRow(err)
	}
	const oursAt, floorAt = 0, 1
	ctx := context.Background()
	r := measure.Race(s,
		measure.Contestant{Name: "check", Run: measure.Split(postgresConns, func(ops int) error {
			return checks(ctx, limiter, ops, storeKeyNames)
		})},
		measure.Contestant{Name: "upsert", Run: measure.Split(postgresConns, func(ops int) error { return upserts(ctx, pool, ops) })},
	)
	return []report.Row{against(r, floorAt, oursAt, "postgres gcra, 16 connections: throughput / bare upsert").AtLeast(0.6).Saying(
		"Checks per second of Limiter.Check (one per %s) over those of INSERT … ON CONFLICT DO UPDATE of one row of the same table, which"+
			" decides nothing (one per %s); the same pool, %d keys.", perOp(r, oursAt), perOp(r, floorAt), storeKeys)}
}

func upserts(ctx context.Context, pool *pgxpool.Pool, ops int) error {
	for i := range ops {
		_, err := pool.Exec(ctx, `INSERT INTO throttlekit (key, state, expires_at) VALUES ($1, $2, $3)
			ON CONFLICT (key) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at`,
			"bare:"+storeKeyNames[i%storeKeys], "1700000000000.25", time.Now().Add(time.Hour).UnixMilli())
		if err != nil {
			return err
		}
	}
	return nil
}
