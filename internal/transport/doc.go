// Package transport frames the log for clients: one file for each technique.
//
// Negotiate and Parse read a subscribe request (negotiate.go, request.go).
// Serve then joins the pump and writes what it gets: poll.go serves the
// transports that answer once, stream.go those that hold their response open,
// websocket.go the one that leaves HTTP. The bytes of a message on a transport
// come from its framing, which has no state, so that all connections share
// them.
package transport

import (
	"log/slog"
	"time"

	"github.com/halley-comet/halley/internal/pump"
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

// A Server serves subscribe requests from a pump.
type Server struct {
	Pump *pump.Pump
	// WriteTimeout is how long a client may leave its connection unread before
	// it is cut.
	WriteTimeout time.Duration
	// MultipartLimit ends a raw multipart stream, which pages cannot close.
	MultipartLimit time.Duration
	// Boundary separates the parts of multipart streams. It is unguessable
	// from outside, since a part that holds it could forge others.
	Boundary string
	// Active lists the channels whose HTML, SVG and XML go out by raw multipart.
	Active []string
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
)
