package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"
)

// The oldest servers that the stores work with.
const (
	oldestRedis    = 5
	oldestPostgres = 11
)

// inspectRedis finds out the version, and whether memory pressure may make the server drop records.
func inspectRedis(ctx context.Context, s *storage) ([]finding, error) {
	option, err := rueidis.ParseURL(redisURL(s.redisURL))
	if err != nil {
		return nil, err
	}
	option.DisableCache, option.ForceSingleClient = true, option.Sentinel.MasterSet == ""
	c, err := rueidis.NewClient(option)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	text, err := c.Do(ctx, c.B().Info().Build()).ToString()
	if err != nil {
		return nil, err
	}
	facts := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		facts[name] = value
	}
	found := []finding{versionFinding("Redis", facts["redis_version"], oldestRedis)}
	if policy := facts["maxmemory_policy"]; facts["maxmemory"] != "0" && policy != "" && policy != "noeviction" {
		found = append(found, finding{
			outcome: warned, about: "eviction",
			text: fmt.Sprintf("short of memory, Redis drops records (maxmemory-policy %s), and that reopens their limits", policy),
			fix:  "CONFIG SET maxmemory-policy noeviction, also in redis.conf",
		})
	}
	return found, nil
}

// inspectPostgres finds out the version.
func inspectPostgres(ctx context.Context, s *storage) ([]finding, error) {
	config, err := pgxpool.ParseConfig(s.postgresURL)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }() // it was only read
	var version string
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&version); err != nil {
		return nil, err
	}
	return []finding{versionFinding("PostgreSQL", version, oldestPostgres)}, nil
}

func versionFinding(product, version string, oldest int) finding {
	f := finding{outcome: fine, about: "version", text: product + " " + version}
	first, _, _ := strings.Cut(version, ".")
	switch major, err := strconv.Atoi(strings.TrimRight(first, "abcdefghijklmnopqrstuvwxyz ")); {
	case err != nil:
		f.outcome, f.text = warned, fmt.Sprintf("%s says %q", product, version)
		f.fix = fmt.Sprintf("make sure that it is version %d or later", oldest)
	case major < oldest:
		f.outcome, f.fix = failed, fmt.Sprintf("use version %d or later", oldest)
	}
	return f
}
