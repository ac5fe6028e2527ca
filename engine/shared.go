package engine

import (
	"context"
	"errors"
	"time"
)

// Errors of tables.
var (
	// ErrNotFound means that a table has nothing under a key.
	ErrNotFound = errors.New("engine: not found")
	// ErrConflict means that a value was written since its version was read.
	ErrConflict = errors.New("engine: written meanwhile")
)

// A Sharer is an engine of several nodes that keeps small values for all of them,
// beside the log. It is a further interface that an Engine may have.
type Sharer interface {
	// Table returns the table of a name, letters and digits. It is made when it
	// is first used, with values that last for ttl after they were written; all
	// nodes give the same.
	Table(name string, ttl time.Duration) Table
}

// A Table has small values by keys of any bytes, 1 to 100 of them. What is written
// on one node every other reads from then on.
//
// Errors: those that are named, ErrUnavailable, ErrClosed, or ctx's. A write that
// failed may have happened.
type Table interface {
	// Get returns the value under a key, and its version, or ErrNotFound.
	Get(ctx context.Context, key string) (value []byte, version uint64, err error)

	// Put writes a value, whatever was there.
	Put(ctx context.Context, key string, value []byte) (version uint64, err error)

	// Update writes a value if what is there is of a version, 0 for nothing; else
	// it returns ErrConflict.
	Update(ctx context.Context, key string, value []byte, version uint64) (uint64, error)

	// Take returns a value and removes it. Of several callers one gets it, and the
	// others ErrNotFound.
	Take(ctx context.Context, key string) ([]byte, error)

	// Delete removes what is there.
	Delete(ctx context.Context, key string) error

	// Watch calls f with what is in the table, and then with what is written, on
	// whatever node; with nil once all that was there has come, and again after
	// it had to begin anew, when values may come a second time. It returns when
	// ctx ends, with its error, or with ErrClosed.
	Watch(ctx context.Context, f func(*Entry)) error
}

// An Entry is a value in a table.
type Entry struct {
	Key     string
	Value   []byte // nil if it was removed
	Version uint64
}
