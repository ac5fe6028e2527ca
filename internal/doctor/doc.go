// Package doctor finds out what stands between a client and a Halley server:
// which transports get through, which are held back, by how much, and by whom.
//
// It knows the protocol by its bytes only. A message that it publishes has a
// mark in its data, and each transport is asked when the bytes of that mark
// came, whatever they are framed in.
package doctor
