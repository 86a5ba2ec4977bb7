package main

import (
	"cmp"
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/throttlekit/throttlekit-go"
	dynamostore "github.com/throttlekit/throttlekit-go/store/dynamodb"
)

// anyRegion signs requests to an endpoint of the user's own, which seldom cares.
const anyRegion = "us-east-1"

// openDynamo takes credentials, and a region that no flag gives, from where AWS' own tools take them. A table to be
// created is created now, so that a mistake shows; otherwise nothing is asked before the first check.
func openDynamo(s *storage, with replaying) (throttlekit.Store, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	settings, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(s.dynamo.region))
	if err != nil {
		return nil, wrong("the AWS configuration cannot be read: %w", err)
	}
	if settings.Region == "" && s.dynamo.endpoint == "" {
		return nil, wrong("--dynamodb-region must be given, or AWS_REGION set")
	}
	settings.Region = cmp.Or(settings.Region, anyRegion)
	client := dynamodb.NewFromConfig(settings, func(o *dynamodb.Options) {
		if s.dynamo.endpoint != "" {
			o.BaseEndpoint = aws.String(s.dynamo.endpoint)
		}
	})
	config := dynamostore.Config{Table: s.dynamo.table, Prefix: s.dynamo.prefix, Timeout: time.Duration(s.timeout)}
	if with.clock != nil {
		config.Clock = with.clock
	}
	if s.dynamo.create {
		if err := dynamostore.CreateTable(ctx, client, config); err != nil {
			return nil, err
		}
	}
	return opened(dynamostore.New(client, config))
}
