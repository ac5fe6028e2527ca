// Package transport frames the log for clients: one file for each technique.
//
// Negotiate and Parse read a subscribe request (negotiate.go, request.go).
// Serve then joins the pump: poll.go serves the transports that answer once,
// stream.go those that hold their response open, websocket.go the one that
// leaves HTTP. Where it can, it parks the connection (park.go), which the pump
// then writes itself; elsewhere a goroutine writes what the pump has. The bytes of a message on a transport
// come from its framing, which has no state, so that all connections share
// them.
package transport

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/halley-comet/halley/internal/handback"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// The transports' names on the wire.
const (
	LongPolling  = "long-polling"
	JSONP        = "jsonp"
	IFrame       = "iframe"
	Multipart    = "multipart"
	XHRStreaming = "xhr-streaming"
	SSE          = "sse"
	WebSocket    = "websocket"
)

// Names lists the transports in the order that info gives.
var Names = []string{WebSocket, SSE, XHRStreaming, Multipart, IFrame, LongPolling, JSONP}

// Class returns what the pump's Stats count a transport's connections under. 0
// is left for those that have none.
func Class(transport string) uint8 { return uint8(slices.Index(Names, transport) + 1) }

// A Server serves subscribe requests from a pump. It is made by New.
type Server struct {
	Options
	framers framers
	// kinds are those of streams, by the slots of their framings.
	kinds      [pump.Slots]*pump.Kind
	webSockets *pump.Kind
	held       map[string]*pump.Kind // by transport
	returned   handback.Listeners
	tasks      sync.WaitGroup // goroutines that serve what clients have sent
}

// Options of a Server.
type Options struct {
	Pump *pump.Pump
	// Gone is called when a connection is over for which Serve has returned
	// true.
	Gone func()
	// WriteTimeout is how long a client may leave its connection unread before
	// it is cut.
	WriteTimeout time.Duration
	// MultipartLimit ends a raw multipart stream, which pages cannot close.
	MultipartLimit time.Duration
	// Boundary separates the parts of multipart streams. It is unguessable
	// from outside, since a part that holds it could forge others.
	Boundary string
	// Framers are the origins whose pages may have an iframe's page in a frame,
	// beside its own and the one that the request names; "*" for all.
	Framers []string
	// Active lists the channels whose HTML, SVG and XML go out by raw multipart.
	Active []string
	// Refused is called with the problem of each request and of each command of
	// a client that is refused; nil for nobody.
	Refused func(*wire.Problem)
	// Commands serves what WebSocket clients ask for.
	Commands Commands
	// Logger takes what an operator should know.
	Logger *slog.Logger
	// FrameLimit is the size of a WebSocket client's message at most.
	FrameLimit int
}

// The framings' places in the pump's table.
const (
	envelopeSlot = iota
	linesSlot
	iframeSlot
	multipartSlot
	multipartRawSlot
	sseSlot
	sseRawSlot
	websocketSlot
	// chunkedSlots lies between a framing's slot and that of its chunks.
	chunkedSlots
)

// New returns a server.
func New(o Options) *Server {
	s := &Server{Options: o, framers: newFramers(o.Framers)}
	for _, t := range []*stream{
		newIFrame(&Request{}, s.framers), newMultipart(o.Boundary), newMultipartRaw(o.Boundary, o.Active, o.MultipartLimit),
		newSSE(false), newSSE(true), newXHRStreaming(),
	} {
		slot := t.framing.Slot()
		s.kinds[slot], s.kinds[slot+chunkedSlots] = t.kind(), s.parkedKind(t)
	}
	s.webSockets = s.webSocketKind(0)
	s.held = map[string]*pump.Kind{LongPolling: s.heldKind(envelopes{}, LongPolling), JSONP: s.heldKind(envelopes{}, JSONP)}
	return s
}

// Close returns when the server's goroutines are gone, but for those of Serve.
// The pump is to be closed before.
func (s *Server) Close() {
	_ = s.returned.Close() // there is nothing left to be done
	s.tasks.Wait()
}
