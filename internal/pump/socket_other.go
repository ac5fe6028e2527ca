//go:build !linux

package pump

import (
	"errors"
	"net/netip"
	"time"
)

// Elsewhere every connection is written by a goroutine.

const haveSockets = false

type poller struct{}

type event struct{}

func (*event) socket() (int32, uint32) { return 0, 0 }
func (*event) readable() bool          { return false }
func (*event) writable() bool          { return false }
func (*event) closed() bool            { return false }
func (*event) broken() bool            { return false }

func newPoller() (*poller, error) { return nil, ErrNoPoller }

func (*poller) close()                           {}
func (*poller) wake()                            {}
func (*poller) sleep(time.Duration, func() bool) {}
func (*poller) events() ([]event, bool)          { return nil, false }
func (*poller) add(int32, uint32, bool) error    { return ErrNoPoller }
func (*poller) watchRoom(int32, uint32, bool)    {}
func (*poller) remove(int32)                     {}
func receive(int32, []byte) ([]byte, error)      { return nil, ErrNoPoller }
func limitUnsent(int32)                          {}
func shutdownWrite(int32)                        {}
func closeFD(int32)                              {}
func remoteAddr(int32) netip.AddrPort            { return netip.AddrPort{} }

var errAgain = errors.New("pump: nothing to read")

type sender struct{}

func (*sender) start(bool)                 {}
func (*sender) send(int32, []byte) int     { return -1 }
func (*sender) sendAll([]outgoing) []int32 { return nil }
func (*sender) close()                     {}

func sendTo(int32, []byte) int { return -1 }

func hasGone(int32) bool { return false }
