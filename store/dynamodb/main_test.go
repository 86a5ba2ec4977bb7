package dynamostore_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"go.uber.org/goleak"

	throttlekit "github.com/throttlekit/throttlekit-go"
	dynamostore "github.com/throttlekit/throttlekit-go/store/dynamodb"
	"github.com/throttlekit/throttlekit-go/store/dynamodb/dynamotest"
)

// server is the stand-in that all tests share but those that break theirs, and table a
// table on it.
var server *dynamotest.Server

const table = "shared"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if server, err = dynamotest.Start(); err == nil {
		client, done := connect(server, nil)
		err = dynamostore.CreateTable(context.Background(), client, dynamostore.Config{Table: table})
		done()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// connect makes a client, with through between it and the network unless it is nil.
func connect(s *dynamotest.Server, through func(http.RoundTripper) http.RoundTripper) (client *dynamodb.Client, done func()) {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	var tripper http.RoundTripper = transport
	if through != nil {
		tripper = through(transport)
	}
	return dynamodb.New(dynamodb.Options{
		Region: "local", BaseEndpoint: aws.String(s.URL()), HTTPClient: &http.Client{Transport: tripper},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "any", SecretAccessKey: "s3cret"}, nil
		}),
	}), transport.CloseIdleConnections
}

func newClient(tb testing.TB, s *dynamotest.Server) *dynamodb.Client {
	tb.Helper()
	client, done := connect(s, nil)
	tb.Cleanup(done)
	return client
}

var prefixes atomic.Int64

// newPrefix is a prefix that no other test uses.
func newPrefix() string { return fmt.Sprint("p", prefixes.Add(1)) }

// newStore opens a store on the shared table, with a prefix of its own unless the config has one.
func newStore(tb testing.TB, client dynamostore.Client, config dynamostore.Config) *dynamostore.Store {
	tb.Helper()
	if config.Table == "" {
		config.Table = table
	}
	if config.Prefix == "" {
		config.Prefix = newPrefix()
	}
	if config.Timeout == 0 {
		config.Timeout = 20 * time.Second // the machine may be busy, and most tests are not about time
	}
	store, err := dynamostore.New(client, config)
	if err != nil {
		tb.Fatal(err)
	}
	return store
}

func rule(tb testing.TB, s throttlekit.Strategy) throttlekit.Rule {
	tb.Helper()
	r, err := s.Rule()
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func encode(tb testing.TB, t throttlekit.Transition, rec throttlekit.Record) string {
	tb.Helper()
	text, err := t.Encode(rec)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// read is an item's attributes as text, or nil.
func read(tb testing.TB, client *dynamodb.Client, key string) map[string]string {
	tb.Helper()
	out, err := client.GetItem(tb.Context(), &dynamodb.GetItemInput{
		TableName: aws.String(table), ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: key}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	var found map[string]string
	for name, value := range out.Item {
		if found == nil {
			found = make(map[string]string)
		}
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			found[name] = "S" + v.Value
		case *types.AttributeValueMemberN:
			found[name] = "N" + v.Value
		default:
			found[name] = fmt.Sprintf("%T", value)
		}
	}
	return found
}

// write puts an item whose attributes are given as read returns them.
func write(tb testing.TB, client *dynamodb.Client, key string, attributes map[string]string) {
	tb.Helper()
	item := map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: key}}
	for name, value := range attributes {
		if value[0] == 'S' {
			item[name] = &types.AttributeValueMemberS{Value: value[1:]}
		} else {
			item[name] = &types.AttributeValueMemberN{Value: value[1:]}
		}
	}
	if _, err := client.PutItem(tb.Context(), &dynamodb.PutItemInput{TableName: aws.String(table), Item: item}); err != nil {
		tb.Fatal(err)
	}
}
