// Package client talks to a ThrottleKit service over gRPC.
package client
