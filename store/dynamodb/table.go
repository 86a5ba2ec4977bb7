package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// TableClient is what [CreateTable] needs of a [*dynamodb.Client].
type TableClient interface {
	CreateTable(ctx context.Context, in *dynamodb.CreateTableInput, opts ...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error)
	DescribeTable(
		ctx context.Context, in *dynamodb.DescribeTableInput, opts ...func(*dynamodb.Options),
	) (*dynamodb.DescribeTableOutput, error)
	UpdateTimeToLive(
		ctx context.Context, in *dynamodb.UpdateTimeToLiveInput, opts ...func(*dynamodb.Options),
	) (*dynamodb.UpdateTimeToLiveOutput, error)
}

const (
	createTimeout = 30 * time.Second
	createPoll    = 200 * time.Millisecond
)

// CreateTable creates the table of config, billed by request, waits up to 30 s until it
// can be used, and has DynamoDB remove expired items. A table that exists already is
// left as it is, but must have the right key. Errors match [throttlekit.ErrInvalid] or
// [throttlekit.ErrStoreUnavailable].
func CreateTable(ctx context.Context, client TableClient, config Config) error {
	config, err := config.resolve()
	if err != nil {
		return err
	}
	if client == nil {
		return &throttlekit.InvalidError{Field: "client", Value: nil, Rule: "must be given"}
	}
	inner, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	_, err = client.CreateTable(inner, &dynamodb.CreateTableInput{
		TableName:            &config.Table,
		BillingMode:          types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: &config.HashKey, AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: &config.HashKey, KeyType: types.KeyTypeHash}},
	})
	if _, exists := errors.AsType[*types.ResourceInUseException](err); exists {
		err = nil
	}
	if err == nil {
		err = awaitTable(inner, client, config)
	}
	if err == nil {
		err = expireItems(inner, client, config)
	}
	s := Store{config: config}
	return s.fail(ctx, err)
}

// awaitTable waits until the table is active.
func awaitTable(ctx context.Context, client TableClient, config Config) error {
	ticker := time.NewTicker(createPoll)
	defer ticker.Stop()
	for {
		out, err := client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &config.Table})
		_, missing := errors.AsType[*types.ResourceNotFoundException](err)
		switch {
		case missing: // DescribeTable is allowed to lag
		case err != nil:
			return err
		case out.Table != nil && (out.Table.TableStatus == types.TableStatusActive || out.Table.TableStatus == types.TableStatusUpdating):
			return checkKey(out.Table, config)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("the table is not ready yet: %w", ctx.Err())
		}
	}
}

// checkKey makes sure that the table's key is a single string of the right name.
func checkKey(table *types.TableDescription, config Config) error {
	key := types.AttributeDefinition{AttributeName: &config.HashKey, AttributeType: types.ScalarAttributeTypeS}
	if len(table.KeySchema) == 1 && aws.ToString(table.KeySchema[0].AttributeName) == config.HashKey {
		for _, a := range table.AttributeDefinitions {
			if aws.ToString(a.AttributeName) == aws.ToString(key.AttributeName) && a.AttributeType == key.AttributeType {
				return nil
			}
		}
	}
	return fmt.Errorf("the table has another key than the string %q", config.HashKey)
}

// expireItems switches DynamoDB's time to live on. It is housekeeping: where the
// operation does not exist, items stay until somebody else removes them.
func expireItems(ctx context.Context, client TableClient, config Config) error {
	_, err := client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
		TableName: &config.Table,
		TimeToLiveSpecification: &types.TimeToLiveSpecification{
			AttributeName: aws.String(expiresName), Enabled: aws.Bool(true),
		},
	})
	api, ok := errors.AsType[smithy.APIError](err)
	switch {
	case !ok:
		return err
	case api.ErrorCode() == "UnknownOperationException":
		return nil
	case api.ErrorCode() == "ValidationException" && strings.Contains(api.ErrorMessage(), "already enabled"):
		return nil
	}
	return err
}
