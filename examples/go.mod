module github.com/throttlekit/throttlekit-go/examples

go 1.26.0

require (
	github.com/throttlekit/throttlekit-go v0.0.0
	github.com/throttlekit/throttlekit-go/client v0.0.0
	github.com/throttlekit/throttlekit-go/server v0.0.0
	github.com/throttlekit/throttlekit-go/service v0.0.0
)

require (
	connectrpc.com/connect/v2 v2.0.2 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/prometheus/client_golang v1.25.0 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/throttlekit/throttlekit-go/api v0.0.0 // indirect
	go.yaml.in/yaml/v4 v4.0.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260928230214-8a89bd6388cc // indirect
	google.golang.org/grpc v1.85.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace (
	github.com/throttlekit/throttlekit-go => ..
	github.com/throttlekit/throttlekit-go/api => ../api
	github.com/throttlekit/throttlekit-go/client => ../client
	github.com/throttlekit/throttlekit-go/server => ../server
	github.com/throttlekit/throttlekit-go/service => ../service
)
