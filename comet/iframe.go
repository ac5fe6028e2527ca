package comet

import "bytes"

// The frame of an envelope in the forever frame. The envelope is escaped, so
// that the closing tag can stand nowhere else.
var (
	scriptOpen  = []byte("<script>_(")
	scriptClose = []byte(")</script>")
)

// iframeParser finds the envelopes in the forever frame's HTML.
type iframeParser struct {
	streaming
	buf    []byte
	max    int
	inside bool // buf starts after a scriptOpen
}

func (p *iframeParser) feed(b []byte) (frames []frame, err error) {
	// scanned bytes at the start of buf hold no mark that is looked for.
	scanned := max(0, len(p.buf)-len(scriptClose)+1)
	p.buf = append(p.buf, b...)
	rest := p.buf
	defer func() { p.buf = append(p.buf[:0], rest...) }()
	for {
		if !p.inside {
			i := bytes.Index(rest[scanned:], scriptOpen)
			if i < 0 {
				// Only what may be the start of a mark is kept.
				rest = rest[max(0, len(rest)-len(scriptOpen)+1):]
				return frames, nil
			}
			rest = rest[scanned+i+len(scriptOpen):]
			p.inside, scanned = true, 0
		}
		i := bytes.Index(rest[scanned:], scriptClose)
		size := scanned + i
		if i < 0 {
			// What may be a part of the closing tag does not count.
			size = max(0, len(rest)-len(scriptClose)+1)
		}
		if size > p.max {
			return frames, errTooLarge
		}
		if i < 0 {
			return frames, nil
		}
		if frames, err = appendDecoded(frames, expression(rest[:size])); err != nil {
			return frames, err
		}
		rest = rest[size+len(scriptClose):]
		p.inside, scanned = false, 0
	}
}
