package comet

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

const (
	openEnvelope    = `{"control":"open","id":"e1-7","heartbeat":2.5}`
	gapEnvelope     = `{"control":"gap","id":"e1-7"}`
	messageEnvelope = `{"id":"e1-8","channel":"a/b","type":"said","time":1764000000000,"data":{"n":1.0e5}}`
	textEnvelope    = `{"id":"e1-9","channel":"a/c","time":1764000000001,"data":"\u003c/script>\u2028é"}`
	binaryEnvelope  = `{"id":"e1-10","channel":"a/b","time":1764000000001,"data64":"/wA=","contentType":"image/png"}`
	unknownEnvelope = `{"control":"later","id":"e1-99"}`
	beatEnvelope    = `{"control":"heartbeat","id":"e1-12"}`
	skipEnvelope    = `{"control":"skip","id":"e1-13"}`
	reconnect       = `{"control":"reconnect","delay":1500}`
	errorEnvelope   = `{"control":"error","status":403,"code":"forbidden","title":"Forbidden","detail":"no"}`
)

var envelopes = []string{openEnvelope, gapEnvelope, messageEnvelope, textEnvelope, binaryEnvelope, unknownEnvelope,
	beatEnvelope, skipEnvelope, reconnect, errorEnvelope}

// frames is what every parser makes of envelopes.
var frames = []frame{
	{Event: Event{Control: Open, Cursor: "e1-7", Heartbeat: 2500 * time.Millisecond}},
	{Event: Event{Control: Gap, Cursor: "e1-7"}},
	{Event: Event{Cursor: "e1-8", Message: Message{ID: "e1-8", Channel: "a/b", Type: "said", Time: 1764000000000, Data: []byte(`{"n":1.0e5}`)}}},
	{Event: Event{Cursor: "e1-9", Message: Message{ID: "e1-9", Channel: "a/c", Time: 1764000000001, Data: []byte(`"\u003c/script>\u2028é"`)}}},
	{Event: Event{Cursor: "e1-10", Message: Message{ID: "e1-10", Channel: "a/b", Time: 1764000000001, Data64: []byte{0xff, 0}, ContentType: "image/png"}}},
	{Event: Event{Control: Heartbeat, Cursor: "e1-12"}},
	{Event: Event{Control: Skip, Cursor: "e1-13"}},
	{Event: Event{Control: Reconnect, Delay: 1500 * time.Millisecond}},
	{problem: &Problem{Status: 403, Code: "forbidden", Title: "Forbidden", Detail: "no"}},
}

// wrap makes a stream of envelopes, given how each is framed.
func wrap(head string, frame func(string) string) string {
	var b strings.Builder
	b.WriteString(head)
	for _, e := range envelopes {
		b.WriteString(frame(e))
	}
	return b.String()
}

func wsFrame(fin bool, op ws.OpCode, payload string) string {
	var b bytes.Buffer
	ws.WriteFrame(&b, ws.NewFrame(op, fin, []byte(payload)))
	return b.String()
}

// streams has a hand-made stream for each parser of held responses.
var streams = map[string]struct {
	new    func(max int) parser
	stream string
}{
	"xhr-streaming": {
		func(max int) parser { return &lineParser{max: max} },
		wrap("\n\n\n", func(e string) string { return e + "\n" }),
	},
	"sse": {
		func(max int) parser { return &sseParser{max: max} },
		wrap("\ufeff: comment\n\n", func(e string) string {
			if name, control := strings.CutPrefix(e, `{"control":"`); control {
				name, _, _ = strings.Cut(name, `"`)
				return "event: comet:" + name + "\r\ndata: " + e + "\r\n\r\n"
			}
			return "data: " + e + "\nid: e1-1\n\n"
		}),
	},
	"iframe": {
		func(max int) parser { return &iframeParser{max: max} },
		wrap("<!doctype html><script>var _=function(){}</script><!--"+strings.Repeat(" ", 2048)+"-->", func(e string) string {
			return "<script>_(" + strings.ReplaceAll(e, "<", `\u003c`) + ")</script>\n"
		}),
	},
	"multipart": {
		func(max int) parser { return newMultipartParser("B", max) },
		wrap("  --Bx\n--B \r\n--B\r\n", func(e string) string {
			return fmt.Sprintf("Content-Type: application/json; charset=utf-8\r\ncontent-length: %d\r\nComet-Id: x\r\n\r\n%s\r\n--B\r\n", len(e), e)
		}),
	},
	"websocket": {
		func(max int) parser { return &frameParser{max: max} },
		wrap("", func(e string) string {
			return wsFrame(false, ws.OpText, e[:9]) + wsFrame(true, ws.OpPong, "?") + wsFrame(true, ws.OpContinuation, e[9:])
		}),
	},
}

// feedAll feeds a stream in pieces of random size, or whole without r.
func feedAll(p parser, stream []byte, r *rand.Rand) (got []frame, held int, err error) {
	for len(stream) > 0 {
		n := len(stream)
		if r != nil {
			n = min(n, 1+r.IntN(1+r.IntN(40)))
		}
		// A parser must keep nothing of the bytes it is given.
		piece := bytes.Clone(stream[:n])
		frames, err := p.feed(piece)
		clear(piece)
		got = append(got, frames...)
		if err != nil {
			return got, held, err
		}
		held = max(held, holds(p))
		stream = stream[n:]
	}
	frames, err := p.end()
	return append(got, frames...), held, err
}

// holds returns how many bytes a parser keeps between two pieces.
func holds(p parser) int {
	switch p := p.(type) {
	case *pollParser:
		return len(p.buf)
	case *jsonpParser:
		return len(p.buf)
	case *lineParser:
		return len(p.buf)
	case *iframeParser:
		return len(p.buf)
	case *sseParser:
		return len(p.line) + len(p.data)
	case *multipartParser:
		return len(p.buf)
	case *frameParser:
		return len(p.buf) + len(p.message)
	}
	panic("unknown parser")
}

func TestStreams(t *testing.T) {
	for name, s := range streams {
		t.Run(name, func(t *testing.T) {
			got, _, err := feedAll(s.new(1000), []byte(s.stream), nil)
			if !reflect.DeepEqual(got, frames) || !errors.Is(err, errCut) {
				t.Errorf("got %+v, %v\nwant %+v, %v", got, err, frames, errCut)
			}
			for seed := range uint64(50) {
				pieces, _, _ := feedAll(s.new(1000), []byte(s.stream), rand.New(rand.NewPCG(seed, 0)))
				if !reflect.DeepEqual(pieces, frames) {
					t.Fatalf("in pieces, seed %d: got %+v\nwant %+v", seed, pieces, frames)
				}
			}
		})
	}
}

// TestUnfinishedTail cuts each stream at every byte: what was there before the
// frame that is cut comes, and nothing of the rest.
func TestUnfinishedTail(t *testing.T) {
	for name, s := range streams {
		t.Run(name, func(t *testing.T) {
			last := 0
			for cut := range len(s.stream) + 1 {
				got, _, _ := feedAll(s.new(1000), []byte(s.stream[:cut]), nil)
				if len(got) < last || len(got) > last+1 || len(got) > 0 && !reflect.DeepEqual(got, frames[:len(got)]) {
					t.Fatalf("cut at %d: got %+v", cut, got)
				}
				last = len(got)
			}
		})
	}
}

func TestFrameTooLarge(t *testing.T) {
	for name, s := range streams {
		t.Run(name, func(t *testing.T) {
			_, held, err := feedAll(s.new(60), []byte(s.stream), rand.New(rand.NewPCG(1, 2)))
			if !errors.Is(err, errTooLarge) || held > 60+40+50 {
				t.Errorf("got %v with %d bytes held, want %v", err, held, errTooLarge)
			}
		})
	}
}

func TestPoll(t *testing.T) {
	const page = `{"cursor":"e1-12","messages":[` + messageEnvelope + `,` + textEnvelope + `],"gap":true}`
	want := []frame{{Event: Event{Control: Gap}}, frames[2], frames[3],
		{Event: Event{Control: Heartbeat, Cursor: "e1-12"}, polled: true}}
	for name, test := range map[string]struct {
		new  func() parser
		body string
		want []frame
	}{
		"long-polling":      {func() parser { return &pollParser{max: 1000} }, page, want},
		"empty":             {func() parser { return &pollParser{max: 1000} }, `{"cursor":"e1-12","messages":[]}`, want[3:]},
		"jsonp":             {func() parser { return &jsonpParser{pollParser{max: 1000}} }, "/**/_(" + page + ");", want},
		"jsonp, line end":   {func() parser { return &jsonpParser{pollParser{max: 1000}} }, "/**/_(" + page + ");\n", want},
		"jsonp, error":      {func() parser { return &jsonpParser{pollParser{max: 1000}} }, "/**/_(" + errorEnvelope + ");", frames[8:]},
		"jsonp, cut":        {func() parser { return &jsonpParser{pollParser{max: 1000}} }, "/**/_(" + page, nil},
		"jsonp, elsewhere":  {func() parser { return &jsonpParser{pollParser{max: 1000}} }, "/**/x(" + page + ");", nil},
		"cut":               {func() parser { return &pollParser{max: 1000} }, page[:len(page)-1], nil},
		"no cursor":         {func() parser { return &pollParser{max: 1000} }, `{"messages":[]}`, nil},
		"message has no id": {func() parser { return &pollParser{max: 1000} }, `{"cursor":"e1-1","messages":[{"data":1}]}`, nil},
		"too large":         {func() parser { return &pollParser{max: 100} }, page, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := feedAll(test.new(), []byte(test.body), rand.New(rand.NewPCG(1, 2)))
			if !reflect.DeepEqual(got, test.want) || (err == nil) != (test.want != nil) {
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}

func TestRawSSE(t *testing.T) {
	const stream = "retry: 2000\n\n" +
		"event: comet:open\ndata: " + openEnvelope + "\nid: e1-7\n\n" +
		"event: said\ndata: one\ndata: \ndata:two\nid: e1-8\n\n" +
		"data: \rid: e1-9\r\r" +
		"id: e1-10\n\n" + // no data: not an event
		"data: no id\n\n" +
		"event: comet:heartbeat\r\ndata: " + beatEnvelope + "\r\n\r\n" +
		"data: unfinished\nid: e1-14\n"
	want := []frame{
		{retry: 2 * time.Second},
		frames[0],
		{Event: Event{Cursor: "e1-8", Message: Message{ID: "e1-8", Channel: "a", Type: "said", Data: []byte(`"one\n\ntwo"`)}}},
		{Event: Event{Cursor: "e1-9", Message: Message{ID: "e1-9", Channel: "a", Data: []byte(`""`)}}},
		frames[5],
	}
	for seed := range uint64(50) {
		p := &sseParser{raw: true, max: 100, channel: "a"}
		got, _, err := feedAll(p, []byte(stream), rand.New(rand.NewPCG(seed, 0)))
		if !reflect.DeepEqual(got, want) || !errors.Is(err, errCut) {
			t.Fatalf("seed %d: got %+v, %v\nwant %+v", seed, got, err, want)
		}
	}
}

func TestWebSocketFaults(t *testing.T) {
	masked := ws.MaskFrame(ws.NewTextFrame([]byte(openEnvelope)))
	var b bytes.Buffer
	ws.WriteFrame(&b, masked)
	for name, stream := range map[string]string{
		"close":             wsFrame(true, ws.OpClose, "\x03\xf5later"),
		"empty close":       wsFrame(true, ws.OpClose, ""),
		"binary":            wsFrame(true, ws.OpBinary, openEnvelope),
		"masked":            b.String(),
		"new inside old":    wsFrame(false, ws.OpText, "{") + wsFrame(true, ws.OpText, "}"),
		"continues nothing": wsFrame(true, ws.OpContinuation, "{}"),
		"reserved bit":      "\xf1\x00",
		"length over 2^63":  "\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
		"not JSON":          wsFrame(true, ws.OpText, "{"),
	} {
		got, _, err := feedAll(&frameParser{max: 100}, []byte(stream), nil)
		if len(got) > 0 || err == nil || errors.Is(err, errCut) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	got, _, _ := feedAll(&frameParser{max: 100}, []byte(wsFrame(true, ws.OpPing, "hi")), nil)
	if len(got) != 1 || string(got[0].ping) != "hi" {
		t.Errorf("ping: got %+v", got)
	}
}

// fuzz checks that a parser makes the same of any bytes whatever the pieces
// they come in, and holds no more than its bound.
func fuzz(f *testing.F, new func() parser, bound int, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s), uint64(1))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		want, _, wantErr := feedAll(new(), stream, nil)
		got, held, err := feedAll(new(), stream, rand.New(rand.NewPCG(seed, 0)))
		if !reflect.DeepEqual(got, want) || (err == nil) != (wantErr == nil) {
			t.Errorf("whole: %+v, %v\npieces: %+v, %v", want, wantErr, got, err)
		}
		if held > bound {
			t.Errorf("%d bytes held, want at most %d", held, bound)
		}
	})
}

const fuzzMax = 120

func FuzzXHRStreaming(f *testing.F) {
	s := streams["xhr-streaming"]
	fuzz(f, func() parser { return s.new(fuzzMax) }, fuzzMax, s.stream)
}

func FuzzSSE(f *testing.F) {
	s := streams["sse"]
	fuzz(f, func() parser { return s.new(fuzzMax) }, fuzzMax+1, s.stream)
}

func FuzzSSERaw(f *testing.F) {
	fuzz(f, func() parser { return &sseParser{raw: true, max: fuzzMax} }, fuzzMax+1,
		"retry: 1\n\n: c\rid: e-1\r\ndata: a\ndata\n\nevent: x\ndata: b\n\n", streams["sse"].stream)
}

func FuzzIFrame(f *testing.F) {
	s := streams["iframe"]
	fuzz(f, func() parser { return s.new(fuzzMax) }, fuzzMax+len(scriptClose), s.stream)
}

func FuzzMultipart(f *testing.F) {
	s := streams["multipart"]
	fuzz(f, func() parser { return s.new(fuzzMax) }, maxPartHeader+fuzzMax, s.stream)
}

func FuzzWebSocket(f *testing.F) {
	s := streams["websocket"]
	fuzz(f, func() parser { return s.new(fuzzMax) }, fuzzMax+ws.MaxHeaderSize, s.stream)
}

func FuzzPoll(f *testing.F) {
	fuzz(f, func() parser { return &pollParser{max: fuzzMax} }, fuzzMax,
		`{"cursor":"e1-12","messages":[`+messageEnvelope+`],"gap":true}`)
}

func FuzzJSONP(f *testing.F) {
	fuzz(f, func() parser { return &jsonpParser{pollParser{max: fuzzMax}} }, fuzzMax,
		`/**/_({"cursor":"e1-12","messages":[`+messageEnvelope+`]});`, `/**/_(`+errorEnvelope+`);`)
}
