// Package server puts doors on a service: gRPC, HTTP/JSON and health.
package server
