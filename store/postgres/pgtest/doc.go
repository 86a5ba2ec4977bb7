// Package pgtest runs a private PostgreSQL for tests: a cluster of its own in a
// temporary folder, on a free port of the loopback interface, without fsync. It can be
// killed, frozen and started again, which is what fault tests are made of.
//
//	server, err := pgtest.Start()
//	...
//	defer server.Stop()
//	pool, err := pgxpool.New(ctx, server.URL())
//
// Start takes a second or two, so a test binary starts one server in TestMain and gives
// every test a table of its own. The package needs Linux and PostgreSQL's server
// programs (Debian: the package "postgresql"); if those are missing, Start says so in
// an error that matches [ErrMissing]. It does not link the testing package.
//
// A [Server] is safe for concurrent use. Should the test process die, a watchdog stops
// the server and removes its folder.
package pgtest
