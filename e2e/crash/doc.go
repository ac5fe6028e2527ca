// Package crash tests what the halley command keeps when it is killed under
// load and when its disk is full. The command is the real one, in a process of
// its own, and what is said of it here was seen by its clients.
//
// The tests run some rounds of kills. HALLEY_CRASH_ROUNDS sets how many, as
// script/crash does for these tests and for those of engine/disk that cut the
// power. HALLEY_CRASH_SEED repeats the random choices of a run.
// HALLEY_BINARY names a halley to test in place of one built from this tree.
package crash
