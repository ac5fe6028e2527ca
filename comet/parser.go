package comet

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// A parser turns the body of one response into frames, whatever the pieces it
// comes in. It knows nothing of HTTP, and holds at most one frame, whose size
// is bounded.
type parser interface {
	// feed takes the next bytes and returns the frames that they complete.
	// With an error the stream is of no use any more, the frames before it are.
	feed(p []byte) ([]frame, error)
	// end tells the parser that the body is complete. Streams return errCut:
	// one that has an end says so in a frame.
	end() ([]frame, error)
}

// A frame is an event, or something that only the subscription must know.
type frame struct {
	Event
	problem *Problem      // an error control
	retry   time.Duration // an sse retry field, above 0
	ping    []byte        // the payload of a WebSocket ping, not nil
	polled  bool          // ends a poll's answer: Event.Cursor is where to go on
}

var (
	errCut      = errors.New("comet: the stream ended without saying so")
	errTooLarge = errors.New("comet: frame is larger than Options.MaxFrame")
)

// decode reads one envelope. It returns false for a control that it does not
// know, which a later version of the protocol may have.
func decode(b []byte) (frame, bool, error) {
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return frame{}, false, fmt.Errorf("comet: envelope %.80q: %w", b, err)
	}
	f := frame{Event: Event{Control: e.Control, Cursor: e.ID}}
	switch e.Control {
	case "":
		if e.ID == "" || e.Data == nil && e.Data64 == nil {
			return frame{}, false, fmt.Errorf("comet: envelope %.80q: no id or no data", b)
		}
		f.Message = e.Message
	case Open, Gap, Heartbeat, Skip:
		if e.ID == "" {
			return frame{}, false, fmt.Errorf("comet: envelope %.80q: no id", b)
		}
		if e.Control == Open {
			f.Heartbeat = duration(e.Heartbeat, time.Second)
		}
	case Reconnect:
		f.Cursor = ""
		if e.Delay != nil {
			f.Delay = duration(float64(*e.Delay), time.Millisecond)
		}
	case "error":
		f.Event = Event{}
		f.problem = &Problem{Status: e.Status, Code: e.Code, Title: e.Title, Detail: e.Detail}
	default:
		return frame{}, false, nil
	}
	return f, true, nil
}

// duration returns n units, 0 if n is negative, and what does not fit bounded.
func duration(n float64, unit time.Duration) time.Duration {
	d := n * float64(unit)
	if !(d > 0) {
		return 0
	}
	if d >= math.MaxInt64/4 {
		return math.MaxInt64 / 4
	}
	return time.Duration(d)
}

// appendDecoded appends the frame of one envelope to frames.
func appendDecoded(frames []frame, b []byte) ([]frame, error) {
	f, ok, err := decode(b)
	if ok {
		frames = append(frames, f)
	}
	return frames, err
}

// streaming is the end of a parser for a response that is held open.
type streaming struct{}

func (streaming) end() ([]frame, error) { return nil, errCut }
