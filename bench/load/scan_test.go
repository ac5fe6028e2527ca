package load

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// found scans the pieces and returns the sequences.
func found(pieces ...[]byte) (sequences []uint64) {
	var s scanner
	for _, piece := range pieces {
		s.scan(piece, func(sequence uint64, sent int64) { sequences = append(sequences, sequence) })
	}
	return sequences
}

func TestScanSplitAnywhere(t *testing.T) {
	var stream []byte
	for i := range uint64(3) {
		stream = fmt.Appendf(stream, "a5\r\ndata: @@%s\nid: @7:8@\n\n\r\n", Message(i, 128))
	}
	want := []uint64{0, 1, 2}
	for i := range stream {
		if got := found(stream[:i], stream[i:]); !slices.Equal(got, want) {
			t.Fatalf("split at %d: got %v", i, got)
		}
		for j := i; j < len(stream); j += 7 {
			if got := found(stream[:i], stream[i:j], stream[j:]); !slices.Equal(got, want) {
				t.Fatalf("split at %d and %d: got %v", i, j, got)
			}
		}
	}
}

func TestScanByteByByte(t *testing.T) {
	stream := slices.Concat(Message(41, 0), []byte("@0123@"), Message(42, 64), []byte("@"), Message(43, 0))
	var pieces [][]byte
	for i := range stream {
		pieces = append(pieces, stream[i:i+1])
	}
	if got := found(pieces...); !slices.Equal(got, []uint64{41, 42, 43}) {
		t.Fatalf("got %v", got)
	}
}

func TestScanRandomPieces(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var stream []byte
		var want []uint64
		for range 20 {
			sequence := random.Uint64N(1e12)
			want = append(want, sequence)
			stream = append(stream, Message(sequence, 30+random.IntN(40))...)
			stream = append(stream, "@012345678901:x@@5"[:random.IntN(18)]...)
		}
		var pieces [][]byte
		for rest := stream; len(rest) > 0; {
			n := min(1+random.IntN(60), len(rest))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		if got := found(pieces...); !slices.Equal(got, want) {
			t.Fatalf("got %v\nwant %v", got, want)
		}
	}
}

func TestMessageHasTime(t *testing.T) {
	before := Now()
	message := Message(5, 128)
	if len(message) != 128 || bytes.Count(message, []byte("@")) != 2 {
		t.Fatalf("message is %q", message)
	}
	var s scanner
	s.scan(message, func(_ uint64, sent int64) {
		if sent < before || sent > Now() {
			t.Errorf("sent at %d, not between %d and now", sent, before)
		}
	})
}
