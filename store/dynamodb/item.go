package dynamostore

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// The names of an item's attributes; specification: §4.5.
const (
	stateName         = "state"
	expiresName       = "expires_at"
	expiresMillisName = "expires_at_ms"
	versionName       = "version"
)

// item is what the table holds under a key.
type item struct {
	exists  bool
	state   string
	version int64
	expires float64 // epoch milliseconds; others may write fractions

	// expiry is the attribute that expires was read from, by its name.
	expiryName string
	expiry     types.AttributeValue
}

var errForeign = errors.New("the item is not a record")

// readItem reads an item, which is missing if there are no attributes.
func readItem(attributes map[string]types.AttributeValue) (*item, error) {
	if len(attributes) == 0 {
		return &item{}, nil
	}
	state, ok := attributes[stateName].(*types.AttributeValueMemberS)
	if !ok {
		return nil, fmt.Errorf("%w: its %s is no string", errForeign, stateName)
	}
	version, err := strconv.ParseInt(number(attributes[versionName]), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: its %s is no integer", errForeign, versionName)
	}
	name, unit := expiresMillisName, 1.0
	if _, ok := attributes[name]; !ok {
		name, unit = expiresName, 1000
	}
	expires, err := strconv.ParseFloat(number(attributes[name]), 64)
	if err != nil {
		return nil, fmt.Errorf("%w: its %s is no number", errForeign, name)
	}
	return &item{
		exists: true, state: state.Value, version: version, expires: expires * unit, expiryName: name, expiry: attributes[name],
	}, nil
}

// number is the text of a number attribute, or empty.
func number(value types.AttributeValue) string {
	if n, ok := value.(*types.AttributeValueMemberN); ok {
		return n.Value
	}
	return ""
}

// record is what an item means at now.
func (i item) record(t throttlekit.Transition, nowMillis int64) (throttlekit.Record, error) {
	if !i.exists || i.expires <= float64(nowMillis) {
		return throttlekit.Record{}, nil
	}
	return t.Decode([]byte(i.state))
}

// put is the request that replaces an item, on the condition that it is still as it was
// read. The version alone would not do: a reset, or DynamoDB's own time to live, takes the
// item away, and the next one begins with version 0 again. An item with the same version,
// state and expiry is as good as the one that was read.
func (s *Store) put(key string, old item, state string, nowMillis, ttlMillis int64) *dynamodb.PutItemInput {
	expires := min(throttlekit.MaxSafe, nowMillis+min(ttlMillis, throttlekit.MaxSafe))
	version := int64(0)
	request := &dynamodb.PutItemInput{
		TableName:                           &s.config.Table,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if old.exists {
		version = old.version + 1
		request.ConditionExpression = aws.String("#version = :version AND #state = :state AND #expiry = :expiry")
		request.ExpressionAttributeNames = map[string]string{
			"#version": versionName, "#state": stateName, "#expiry": old.expiryName,
		}
		request.ExpressionAttributeValues = map[string]types.AttributeValue{
			":version": integer(old.version), ":state": &types.AttributeValueMemberS{Value: old.state}, ":expiry": old.expiry,
		}
	} else {
		request.ConditionExpression = aws.String("attribute_not_exists(#key)")
		request.ExpressionAttributeNames = map[string]string{"#key": s.config.HashKey}
	}
	request.Item = map[string]types.AttributeValue{
		s.config.HashKey:  &types.AttributeValueMemberS{Value: key},
		stateName:         &types.AttributeValueMemberS{Value: state},
		expiresName:       integer(ceilSeconds(expires)),
		expiresMillisName: integer(expires),
		versionName:       integer(version),
	}
	return request
}

// ceilSeconds rounds up, so that DynamoDB never takes an item that still counts.
func ceilSeconds(millis int64) int64 {
	seconds := millis / 1000
	if seconds*1000 < millis {
		seconds++
	}
	return seconds
}

func integer(n int64) *types.AttributeValueMemberN {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}
