// Package stores opens the logs on disk that are compared. They run in the
// process of the harness, next to their load: what HTTP costs is not in it.
package stores

import (
	"cmp"
	"runtime/debug"
)

// A Kind is a way to keep messages on disk.
type Kind struct {
	Name string
	// Version tells what is measured.
	Version func() string
	// Open opens the store of a directory, or a new one.
	Open func(dir string) (Store, error)
	// OpenToFill does the same for as much as possible in little time. What
	// was stored is safe when the store was closed.
	OpenToFill func(dir string) (Store, error)
	// Shares names another kind whose data it reads, where it has none of its
	// own.
	Shares string
}

// Folder is the name of the folder that the kind's data is in.
func (k Kind) Folder() string { return cmp.Or(k.Shares, k.Name) }

// A Store is open. Its methods may be called from any number of goroutines.
type Store interface {
	// Publisher returns a function for one goroutine, which stores a message
	// and returns when it is as safe as the kind promises. The data is the
	// store's from then on.
	Publisher() (func(m Message) error, error)
	// Fill stores messages together.
	Fill(messages []Message) error
	// Stored counts the messages that were ever stored.
	Stored() (uint64, error)
	Close() error
}

// A Message is what is stored.
type Message struct {
	Channel string
	Data    []byte
}

// A Reader is a store that reads messages back.
type Reader interface {
	// Read reads the messages of the channels or patterns from the oldest on,
	// in the log's order and in pages of so many, until it has read all. It
	// returns their number, and that of their bytes.
	Read(channels []string, page int) (messages, bytes int, err error)
}

// module returns the version of a module that is part of the harness.
func module(path string) func() string {
	return func() string {
		info, _ := debug.ReadBuildInfo()
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
		return "unknown"
	}
}
