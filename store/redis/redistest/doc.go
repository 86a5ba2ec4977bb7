// Package redistest runs real Redis servers for tests: alone, as a primary with a replica, as
// a Cluster, and under Sentinel. Servers listen on free ports of the loopback interface and
// keep what they write in a folder of their own; nothing is saved unless asked for. They can
// be stopped, killed, frozen and started again on the same port, and end, on Linux, with the
// process that started them. A proxy breaks connections at chosen moments.
//
// It needs redis-server 7; [Start] says which package to install if there is none.
// It does not import package testing, so that benchmarks and examples can use it.
package redistest
