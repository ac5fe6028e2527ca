package comet

import "bytes"

// lineParser parses xhr-streaming: an envelope a line, empty lines are padding.
type lineParser struct {
	streaming
	buf []byte // an unfinished line
	max int
}

func (p *lineParser) feed(b []byte) (frames []frame, err error) {
	for {
		i := bytes.IndexByte(b, '\n')
		size := i
		if i < 0 {
			size = len(b)
		}
		if len(p.buf)+size > p.max {
			return frames, errTooLarge
		}
		if i < 0 {
			p.buf = append(p.buf, b...)
			return frames, nil
		}
		line := b[:i]
		if len(p.buf) > 0 {
			p.buf = append(p.buf, line...)
			line = p.buf
		}
		if len(bytes.TrimRight(line, "\r")) > 0 {
			if frames, err = appendDecoded(frames, line); err != nil {
				return frames, err
			}
		}
		p.buf, b = p.buf[:0], b[i+1:]
	}
}
