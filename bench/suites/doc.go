// Package suites runs suites of Halley's that need a NATS server in their own
// process, where time is theirs to set. Only the module of the benchmarks may
// depend on the server.
package suites
