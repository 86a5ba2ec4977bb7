module github.com/throttlekit/throttlekit-go/cmd/throttlekit

go 1.26.0

require (
	github.com/jackc/pgx/v5 v5.12.0
	github.com/redis/rueidis v1.0.79
	github.com/rogpeppe/go-internal v1.16.0
	github.com/spf13/cobra v1.10.2
	github.com/spf13/pflag v1.0.9
	github.com/throttlekit/throttlekit-go v0.0.0
	github.com/throttlekit/throttlekit-go/api v0.0.0
	github.com/throttlekit/throttlekit-go/client v0.0.0
	github.com/throttlekit/throttlekit-go/server v0.0.0
	github.com/throttlekit/throttlekit-go/service v0.0.0
	github.com/throttlekit/throttlekit-go/store/postgres v0.0.0
	github.com/throttlekit/throttlekit-go/store/redis v0.0.0
	go.uber.org/goleak v1.3.0
	google.golang.org/grpc v1.85.0
)

require (
	connectrpc.com/connect/v2 v2.0.2 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	go.yaml.in/yaml/v4 v4.0.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sync v0.23.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	golang.org/x/tools v0.49.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/throttlekit/throttlekit-go => ../..

replace github.com/throttlekit/throttlekit-go/api => ../../api

replace github.com/throttlekit/throttlekit-go/client => ../../client

replace github.com/throttlekit/throttlekit-go/server => ../../server

replace github.com/throttlekit/throttlekit-go/service => ../../service

replace github.com/throttlekit/throttlekit-go/store/postgres => ../../store/postgres

replace github.com/throttlekit/throttlekit-go/store/redis => ../../store/redis
