module github.com/throttlekit/throttlekit-go/bench

go 1.26.0

require (
	github.com/failsafe-go/failsafe-go v0.9.8
	github.com/go-redis/redis_rate/v10 v10.0.1
	github.com/jackc/pgx/v5 v5.12.0
	github.com/platinummonkey/go-concurrency-limits v0.8.0
	github.com/puzpuzpuz/xsync/v4 v4.5.0
	github.com/redis/go-redis/v9 v9.0.5
	github.com/redis/rueidis v1.0.79
	github.com/sethvargo/go-limiter v0.7.1
	github.com/throttled/throttled/v2 v2.15.0
	github.com/throttlekit/throttlekit-go v0.0.0
	github.com/throttlekit/throttlekit-go/api v0.0.0
	github.com/throttlekit/throttlekit-go/client v0.0.0
	github.com/throttlekit/throttlekit-go/server v0.0.0
	github.com/throttlekit/throttlekit-go/service v0.0.0
	github.com/ulule/limiter/v3 v3.11.2
	golang.org/x/time v0.16.0
	google.golang.org/grpc v1.85.0
)

require (
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/bits-and-blooms/bitset v1.24.4 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/dgryski/go-rendezvous v0.0.0-20200823014737-9f7001d12a5f // indirect
	github.com/influxdata/tdigest v0.0.1 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/prometheus/client_golang v1.25.0 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	golang.org/x/sync v0.23.0 // indirect
)

require (
	connectrpc.com/connect/v2 v2.0.2 // indirect
	github.com/hashicorp/golang-lru v0.5.4 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/throttlekit/throttlekit-go/store/postgres v0.0.0
	github.com/throttlekit/throttlekit-go/store/redis v0.0.0
	go.yaml.in/yaml/v4 v4.0.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260928230214-8a89bd6388cc // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace (
	github.com/throttlekit/throttlekit-go => ..
	github.com/throttlekit/throttlekit-go/api => ../api
	github.com/throttlekit/throttlekit-go/client => ../client
	github.com/throttlekit/throttlekit-go/server => ../server
	github.com/throttlekit/throttlekit-go/service => ../service
)

replace github.com/throttlekit/throttlekit-go/store/redis => ../store/redis

replace github.com/throttlekit/throttlekit-go/store/postgres => ../store/postgres
