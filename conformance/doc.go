// Package conformance tests any server of Halley's native protocol over the
// wire, knowing nothing of it but its URL and the protocol's contract.
//
// [Run] tests a server that runs somewhere; [Test] does the same as subtests of
// a Go test, whose server may live in the same process. The channels that are
// published to have random names under "conformance/", so a server that others
// use at the same time can be tested too.
//
// The suite reads the protocol with small strict readers of its own and shares
// no code with package comet: where the two understood the contract in the
// same wrong way, neither would find the other out.
package conformance
