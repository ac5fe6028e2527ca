package halley

import "github.com/halley-comet/halley/engine"

// The engine contract's names, so that most programs import one package.
type (
	// Engine is the log that a Hub stands on.
	Engine = engine.Engine
	// Message is one entry of the log.
	Message = engine.Message
	// Cursor is a position in the log.
	Cursor = engine.Cursor
	// Batch is a list of messages that are stored together.
	Batch = engine.Batch
	// Receipt tells where a batch was stored.
	Receipt = engine.Receipt
	// Query asks for a part of the log.
	Query = engine.Query
	// Page is a part of the log.
	Page = engine.Page
	// Table has small values that all nodes on a log share.
	Table = engine.Table
	// Entry is a value in a Table.
	Entry = engine.Entry
)

// Errors of the engine contract that callers branch on: see package engine.
var (
	ErrClosed      = engine.ErrClosed
	ErrKeyReused   = engine.ErrKeyReused
	ErrUnavailable = engine.ErrUnavailable
	ErrTooLarge    = engine.ErrTooLarge
	ErrInvalid     = engine.ErrInvalid
	ErrNotFound    = engine.ErrNotFound
	ErrConflict    = engine.ErrConflict
)

// ParseCursor parses a position as clients give and get it.
func ParseCursor(s string) (Cursor, error) { return engine.ParseCursor(s) }
