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
	github.com/aws/aws-sdk-go-v2/credentials v1.20.15 // indirect
	github.com/aws/aws-sdk-go-v2/feature/ec2/imds v1.20.7 // indirect
	github.com/aws/aws-sdk-go-v2/internal/configsources v1.5.10 // indirect
	github.com/aws/aws-sdk-go-v2/internal/endpoints/v2 v2.8.10 // indirect
	github.com/aws/aws-sdk-go-v2/internal/v4a v1.5.10 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/accept-encoding v1.13.24 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/endpoint-discovery v1.13.10 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/presigned-url v1.14.10 // indirect
	github.com/aws/aws-sdk-go-v2/service/signin v1.12.3 // indirect
	github.com/aws/aws-sdk-go-v2/service/sso v1.39.3 // indirect
	github.com/aws/aws-sdk-go-v2/service/ssooidc v1.44.3 // indirect
	github.com/aws/aws-sdk-go-v2/service/sts v1.51.8 // indirect
	github.com/aws/smithy-go v1.28.8 // indirect
)

require (
	connectrpc.com/connect/v2 v2.0.2 // indirect
	github.com/aws/aws-sdk-go-v2 v1.47.7
	github.com/aws/aws-sdk-go-v2/config v1.33.15
	github.com/aws/aws-sdk-go-v2/service/dynamodb v1.73.1
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/throttlekit/throttlekit-go/store/dynamodb v0.0.0
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

replace github.com/throttlekit/throttlekit-go/store/dynamodb => ../../store/dynamodb
