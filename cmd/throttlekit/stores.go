package main

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
)

// The stores that state can be kept in.
const (
	memoryStore   = "memory"
	redisStore    = "redis"
	postgresStore = "postgres"
	dynamoStore   = "dynamodb"
)

// storage is what the flags say about the store.
type storage struct {
	kind    word // empty to infer it
	timeout span
	// connection is the flag of the connection where one is for all stores, empty where each has its own.
	connection string

	redisURL, redisPrefix                      string
	postgresURL, postgresTable, postgresPrefix string
	dynamo                                     dynamo
}

// dynamo is what the flags say about DynamoDB.
type dynamo struct {
	table, region, endpoint, prefix string
	create                          bool
}

// backend is a store that processes can share.
type backend struct {
	name string
	// connection is the flag that selects the backend; its text is at to.
	connection string
	// table is the flag of the table, where there is one.
	table string
	to    func(*storage) *string
	// options are the flags that mean nothing without it.
	options []string
	// prefix is what stands before every key.
	prefix func(*storage) string
	// open connects to nothing yet.
	open func(*storage, replaying) (throttlekit.Store, error)
	// inspect asks the server about itself.
	inspect func(context.Context, *storage) ([]finding, error)
}

// replaying makes a store tell the time by a clock, unless that is nil.
type replaying struct{ clock *throttlekit.ManualClock }

var backends = []*backend{
	{
		name:       redisStore,
		connection: "redis",
		to:         func(s *storage) *string { return &s.redisURL },
		options:    []string{"redis-prefix"},
		prefix:     func(s *storage) string { return s.redisPrefix },
		open:       openRedis,
		inspect:    inspectRedis,
	},
	{
		name:       postgresStore,
		connection: "postgres-url",
		table:      "--postgres-table",
		to:         func(s *storage) *string { return &s.postgresURL },
		options:    []string{"postgres-table", "postgres-prefix"},
		prefix:     func(s *storage) string { return s.postgresPrefix },
		open:       openPostgres,
		inspect:    inspectPostgres,
	},
	{
		name:       dynamoStore,
		connection: "dynamodb-table",
		table:      "--dynamodb-table",
		to:         func(s *storage) *string { return &s.dynamo.table },
		options:    []string{"dynamodb-region", "dynamodb-endpoint", "dynamodb-prefix", "dynamodb-create-table"},
		prefix:     func(s *storage) string { return s.dynamo.prefix },
		open:       openDynamo,
	},
}

// define adds the flags.
func (s *storage) define(cmd *cobra.Command) {
	f := cmd.Flags()
	choice(cmd, &s.kind, "store", "",
		"where state is kept; by default where --redis, --postgres-url or --dynamodb-table says, else in memory",
		memoryStore, redisStore, postgresStore, dynamoStore)
	s.kind.value, f.Lookup("store").DefValue = "", ""
	f.Var(&needed{&s.redisURL, "URL"}, "redis",
		"Redis that servers share: redis://[user:password@]host[:port][/database], rediss:// for TLS, or host:port;"+
			" of a Cluster, any node, and more of them as ?addr=host:port&addr=…; with Sentinel, redis://sentinel:port?master_set=name")
	f.StringVar(&s.redisPrefix, "redis-prefix", "", "`text` before every key in Redis, as in text:key")
	f.Var(&needed{&s.postgresURL, "URL"}, "postgres-url", "PostgreSQL that servers share: postgres://user@host:port/database")
	f.StringVar(&s.postgresTable, "postgres-table", "throttlekit", "`table` in PostgreSQL, created if it is missing")
	f.StringVar(&s.postgresPrefix, "postgres-prefix", "", "`text` before every key in PostgreSQL, as in text:key")
	f.Var(&needed{&s.dynamo.table, "name"}, "dynamodb-table", "DynamoDB table that servers share")
	f.StringVar(&s.dynamo.region, "dynamodb-region", "", "AWS `region` of the table")
	f.StringVar(&s.dynamo.endpoint, "dynamodb-endpoint", "", "`URL` of DynamoDB, if it is not the region's")
	f.StringVar(&s.dynamo.prefix, "dynamodb-prefix", "", "`text` before every key in DynamoDB, as in text:key")
	f.BoolVar(&s.dynamo.create, "dynamodb-create-table", false, "create the table in DynamoDB if it is missing")
	s.timeout = span(250 * time.Millisecond)
	f.Var(&s.timeout, "store-timeout", "how long the store may take for an answer; then the fail mode answers")
}

// needed is a flag whose text must not be empty: an unset variable in a script would otherwise mean that every server
// counts for itself.
type needed struct {
	text *string
	what string
}

// String implements pflag.Value.
func (n *needed) String() string {
	if n.text == nil {
		return ""
	}
	return *n.text
}

// Type implements pflag.Value.
func (n *needed) Type() string { return n.what }

// Set implements pflag.Value.
func (n *needed) Set(text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("must not be empty")
	}
	*n.text = text
	return nil
}

// choose returns the backend that the flags select, nil for memory. What --store says counts; else the one connection
// that is given does.
func (s *storage) choose() (*backend, error) {
	var given []*backend
	var flags []string
	for _, b := range backends {
		if *b.to(s) != "" {
			given = append(given, b)
			flags = append(flags, "--"+b.connection)
		}
	}
	switch kind := s.kind.value; {
	case kind == memoryStore:
		return nil, nil //nolint:nilnil // no backend and no error: memory
	case kind != "":
		b := backends[slices.IndexFunc(backends, func(b *backend) bool { return b.name == kind })]
		if *b.to(s) == "" {
			return nil, wrong("--store %s needs --%s", b.name, b.connection)
		}
		return b, nil
	case len(given) > 1:
		return nil, wrong("the store is ambiguous: %s are given; choose with --store, or give one of them", strings.Join(flags, " and "))
	case len(given) == 1:
		return given[0], nil
	}
	return nil, nil //nolint:nilnil // memory
}

// idle are the flags of cmd that were given and mean nothing, as their backend is not the one.
func idle(cmd *cobra.Command, chosen *backend) (names []string) {
	for _, b := range backends {
		if b == chosen {
			continue
		}
		for _, name := range append([]string{b.connection}, b.options...) {
			if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
				names = append(names, "--"+name)
			}
		}
	}
	return names
}

// shared is a store that processes share, not connected yet.
type shared struct {
	throttlekit.Store

	*backend
}

// open opens the store that the flags select. It is nil for memory, where each policy has a store of its own.
func (s *storage) open(with replaying) (*shared, error) {
	b, err := s.choose()
	if b == nil {
		return nil, err
	}
	store, err := b.open(s, with)
	if err != nil {
		connection := "--" + cmp.Or(s.connection, b.connection)
		return nil, reword(err, map[string]string{
			"url": connection, "initAddress": connection, "postgresUrl": connection, "table": b.table,
		})
	}
	return &shared{Store: store, backend: b}, nil
}

// ping is how long the store takes for an answer, and how far its clock is ahead of this machine's.
func (s *shared) ping(ctx context.Context, within time.Duration) (took, ahead time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	began := time.Now()
	_, now, err := s.Load(ctx, probeKey(), probe)
	if err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	return took, time.UnixMilli(now).Sub(began.Add(took / 2)), nil
}

// storeKind is the name of a store that may be nil.
func storeKind(s *shared) string {
	if s == nil {
		return memoryStore
	}
	return s.name
}

// ttlFloor keeps the records of a replay, whose clock stands still between two checks while Redis' own does not.
const ttlFloor = time.Hour

func openRedis(s *storage, with replaying) (throttlekit.Store, error) {
	config := redisstore.Config{Prefix: s.redisPrefix, Timeout: time.Duration(s.timeout)}
	if with.clock != nil {
		config.Clock, config.TTLFloor = with.clock, ttlFloor
	}
	return opened(redisstore.Open(redisURL(s.redisURL), config))
}

// redisURL is a URL, as which host:port alone will do.
func redisURL(text string) string {
	if strings.Contains(text, "://") {
		return text
	}
	return "redis://" + text
}

func openPostgres(s *storage, with replaying) (throttlekit.Store, error) {
	config := pgstore.Config{Table: s.postgresTable, Prefix: s.postgresPrefix, Timeout: time.Duration(s.timeout)}
	if with.clock != nil {
		config.Clock, config.SweepInterval = with.clock, -1
	}
	return opened(pgstore.Open(s.postgresURL, config))
}

// opened keeps a nil pointer from becoming a store.
func opened[S throttlekit.Store](store S, err error) (throttlekit.Store, error) {
	if err != nil {
		return nil, err
	}
	return store, nil
}

// where is the address of a store, without what a URL may hide: passwords are before the host and in parameters.
func (s *storage) where(b *backend) string {
	text := *b.to(s)
	if b.name == redisStore {
		text = redisURL(text)
	}
	if b.name == dynamoStore {
		return "table " + shown(text)
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "--" + b.connection
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// Where a password may stand in what is printed: in a URL before the host, and after password= anywhere.
var secrets = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@"'\[]*:)[^\s"']*@|((?i:password|pwd)\s*=\s*)[^\s&"']+`)

// discreet is a text without passwords. Nothing that it is called on ought to have one; but a user may give a URL where
// none belongs, and errors say what they got.
func discreet(text string) string {
	return secrets.ReplaceAllStringFunc(text, func(found string) string {
		parts := secrets.FindStringSubmatch(found)
		if parts[1] != "" {
			return parts[1] + "***@"
		}
		return parts[2] + "***"
	})
}

// oneLine is a text that may come from a driver, fit to be printed.
func oneLine(text string) string { return discreet(visible(strings.Join(strings.Fields(text), " "))) }
