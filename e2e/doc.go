// Package e2e tests the halley command with three real browser engines:
// Chromium, Firefox and WebKitGTK. script/browsers installs them (Debian), and
//
//	HALLEY_E2E=1 go test ./e2e/...
//
// runs the tests, headless, also as root. Without HALLEY_E2E they are skipped;
// with it a browser that is missing is a failure. HALLEY_SHOTS names a
// directory that keeps the screenshots. HALLEY_BINARY names a halley to test in
// place of one built from this tree, e.g. with -race.
//
// The tests of the browser client, TestClient…, run in Node too. They need what
// npm ci installs in client/. HALLEY_CHAOS=full makes those longer that break
// the network (script/chaos), and HALLEY_CHAOS_SEED repeats a run's faults.
//
// Clients of other servers have a package of their own, bayeux.
//
// Every test runs in each engine, as a subtest with its name: -run /firefox.
package e2e
