// Package engine is the contract between Halley and the logs it can stand on.
//
// An [Engine] orders messages into one log, stores them and reads them back.
// Everything above it (the pump, the transports, other protocols) knows a
// position in that log, a [Cursor], and nothing else about where messages live.
// The package imports only the standard library, so that an engine can be
// written without the rest of Halley; engine/enginetest holds the suite that
// each engine passes.
package engine
