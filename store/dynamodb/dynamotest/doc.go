// Package dynamotest runs a private stand-in for DynamoDB for tests: npm's dynalite, on a
// free port of the loopback interface, with its data in a temporary folder. It can be
// killed, frozen and started again.
//
//	server, err := dynamotest.Start()
//	...
//	defer server.Stop()
//	client := dynamodb.New(dynamodb.Options{BaseEndpoint: aws.String(server.URL()), ...})
//
// Dynalite needs Node.js 20 or later. The first Start on a machine installs it with npm
// into the user's cache folder; if either program is missing, Start says so in an error
// that matches [ErrMissing]. It checks conditions as DynamoDB does, one item at a time,
// but knows neither transactions nor the time to live of items, and returns no item with
// a failed condition. Any credentials and region will do.
//
// The package does not link the testing package, nor the AWS SDK. A [Server] is safe for
// concurrent use, and ends with the process that started it.
package dynamotest
