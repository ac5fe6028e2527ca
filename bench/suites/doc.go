// Package suites runs suites of Halley's that need a NATS server in their own
// process, where time is theirs to set. Only the module of the benchmarks may
// depend on the server. The race detector makes them five times as slow: they are
// left out under it, as other packages run them with it on their own engines.
package suites
