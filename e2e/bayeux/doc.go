// Package bayeux tests package bayeux with the clients that CometD and Faye
// give to npm, unchanged, in Node and in three browsers. It is run with the
// other tests of e2e:
//
//	HALLEY_E2E=1 go test ./e2e/bayeux
//
// What package.json names is installed by the first test that needs it, by npm.
// HALLEY_CHAOS=full makes the tests longer that break the network
// (script/bayeux), and HALLEY_CHAOS_SEED repeats a run's faults.
package bayeux
