package dynamostore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	throttlekit "github.com/throttlekit/throttlekit-go"
	dynamostore "github.com/throttlekit/throttlekit-go/store/dynamodb"
)

// TestCreateTable: many create one table at once, and again, and then use it.
func TestCreateTable(t *testing.T) {
	t.Parallel()
	client := newClient(t, server)
	config := dynamostore.Config{Table: "created", HashKey: "limiter"}
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			if err := dynamostore.CreateTable(t.Context(), client, config); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if d, err := newStore(t, client, config).Apply(t.Context(), "k", rule(t, slow), 1); err != nil || !d.Allowed {
		t.Error(d, err)
	}
	out, err := client.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("created")})
	if err != nil || out.Table.BillingModeSummary == nil || out.Table.BillingModeSummary.BillingMode != types.BillingModePayPerRequest {
		t.Errorf("the table is not billed by request: %+v, %v", out, err)
	}
	for _, wrong := range []dynamostore.Config{{Table: "created"}, {Table: "created", HashKey: "other"}} {
		err := dynamostore.CreateTable(t.Context(), client, wrong)
		if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(fmt.Sprint(err), "another key") {
			t.Errorf("a table with another key is accepted: %v", err)
		}
		_, err = newStore(t, client, wrong).Apply(t.Context(), "k", rule(t, slow), 1)
		if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(fmt.Sprint(err), "DynamoDB table created") {
			t.Errorf("a store on a table with another key: %v", err)
		}
	}
}

// fakeTables is a DynamoDB that has what the stand-in lacks.
type fakeTables struct {
	create, describe, expire error
	status                   []types.TableStatus // told one after the other, the last for good
	ttl                      string
}

func (f *fakeTables) CreateTable(context.Context, *dynamodb.CreateTableInput, ...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error) {
	return &dynamodb.CreateTableOutput{}, f.create
}

func (f *fakeTables) DescribeTable(
	context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options),
) (*dynamodb.DescribeTableOutput, error) {
	status := f.status[0]
	if len(f.status) > 1 {
		f.status = f.status[1:]
	}
	if status == "missing" {
		return nil, &types.ResourceNotFoundException{}
	}
	return &dynamodb.DescribeTableOutput{Table: &types.TableDescription{
		TableStatus:          status,
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
	}}, f.describe
}

func (f *fakeTables) UpdateTimeToLive(
	_ context.Context, in *dynamodb.UpdateTimeToLiveInput, _ ...func(*dynamodb.Options),
) (*dynamodb.UpdateTimeToLiveOutput, error) {
	f.ttl = *in.TimeToLiveSpecification.AttributeName
	return nil, f.expire
}

func TestCreateTableElsewhere(t *testing.T) {
	t.Parallel()
	active := []types.TableStatus{types.TableStatusActive}
	api := func(code, message string) error { return &smithy.GenericAPIError{Code: code, Message: message} }
	for name, tc := range map[string]struct {
		fake fakeTables
		want string // in the error, or empty for none
	}{
		"new":                  {fakeTables{status: []types.TableStatus{"missing", types.TableStatusCreating, types.TableStatusActive}}, ""},
		"there":                {fakeTables{create: &types.ResourceInUseException{}, status: active}, ""},
		"expires already":      {fakeTables{status: active, expire: api("ValidationException", "TimeToLive is already enabled")}, ""},
		"may not be created":   {fakeTables{create: api("AccessDeniedException", "no"), status: active}, "AccessDenied"},
		"may not be described": {fakeTables{describe: api("AccessDeniedException", "no"), status: active}, "AccessDenied"},
		"may not expire":       {fakeTables{status: active, expire: api("AccessDeniedException", "no")}, "AccessDenied"},
		"expires otherwise":    {fakeTables{status: active, expire: api("ValidationException", "on another attribute")}, "another attribute"},
		"never gets ready":     {fakeTables{status: []types.TableStatus{types.TableStatusCreating}}, "not ready"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := dynamostore.CreateTable(ctx, &tc.fake, dynamostore.Config{Table: "t"})
			if tc.want == "" {
				if err != nil || tc.fake.ttl != "expires_at" {
					t.Errorf("%v, items expire by %q", err, tc.fake.ttl)
				}
			} else if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(fmt.Sprint(err), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestAtomicBatches(t *testing.T) {
	t.Parallel()
	store := newStore(t, newClient(t, server), dynamostore.Config{})
	limiter, err := throttlekit.All([]throttlekit.Dimension{{Name: "user", Strategy: slow}}, throttlekit.WithStore(store))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := limiter.Check(t.Context(), throttlekit.Keys{"user": "42"}, 1); !errors.Is(err, throttlekit.ErrUnsupported) ||
		!strings.Contains(fmt.Sprint(err), "DynamoDB") {
		t.Errorf("%v, want that it is unsupported on DynamoDB", err)
	}
}
