// Package cluster tests three halley nodes on a stream of three NATS servers
// while parts of them are killed, paused, cut off and slowed down. Each of the
// six programs is the real one, in a network namespace of its own, and what is
// said of them here was seen by their clients.
//
//	HALLEY_E2E=1 go test ./e2e/cluster
//
// runs each fault once, as root, on Linux; script/cluster runs 50 rounds.
// HALLEY_CRASH_ROUNDS sets how many, HALLEY_CRASH_SEED repeats the random
// choices of a run. HALLEY_BINARY and HALLEY_NATS_SERVER name programs to test
// in place of those built from this tree.
package cluster
