package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/internal/wire"
)

type exportCmd struct {
	dataDir
	File string `arg:"" optional:"" default:"-" help:"Where to, which must not be there; - is standard output (${default})."`
}

// Run writes every message that is kept.
func (c *exportCmd) Run() error {
	ctx, stop := interruptible()
	defer stop()
	log, err := c.openForReading()
	if err != nil {
		return err
	}
	defer log.Close()
	if c.File == "-" {
		return export(ctx, log, os.Stdout)
	}
	f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = export(ctx, log, f)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(c.File) // half of it is worse than nothing
	}
	return err
}

func export(ctx context.Context, log *disk.Log, to io.Writer) error {
	w := bufio.NewWriterSize(to, 64<<10)
	q := engine.Query{Channels: []string{"**"}, Limit: engine.DefaultLimit, Bytes: 4 << 20}
	n := 0
	for {
		page, err := log.Read(ctx, q)
		if err != nil && q.Limit > 1 && ctx.Err() == nil {
			q.Limit = 1 // as far as the log can be read
			continue
		}
		if err != nil {
			return errors.Join(err, w.Flush())
		}
		var line []byte
		for _, m := range page.Messages {
			line = appendExported(line[:0], m)
			if _, err := w.Write(append(line, '\n')); err != nil {
				return err
			}
		}
		n += len(page.Messages)
		if !page.More {
			break
		}
		q.After = page.End
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "halley: %d messages, up to %s\n", n, log.End())
	return nil
}

// appendExported appends the message's envelope, with what it leaves out for
// clients: the content type where it does not follow from data, headers, and
// JSON to the byte.
func appendExported(dst []byte, m *engine.Message) []byte {
	dst = append(dst, `{"id":"`...)
	dst = m.ID.Append(dst)
	dst = append(dst, `","channel":`...)
	dst = wire.AppendString(dst, m.Channel)
	if m.Type != "" {
		dst = append(dst, `,"type":`...)
		dst = wire.AppendString(dst, m.Type)
	}
	dst = append(dst, `,"time":`...)
	dst = strconv.AppendInt(dst, m.Time, 10)
	plain := "" // what the content type is taken for if it is left out
	switch kind := engine.KindOf(m.ContentType); {
	case kind == engine.Text && utf8.Valid(m.Data):
		plain = plainText
		dst = append(dst, `,"data":`...)
		dst = wire.AppendString(dst, m.Data)
	case kind == engine.JSON && standsInLine(m.Data):
		if m.Data[0] != '"' {
			plain = plainJSON
		}
		dst = append(dst, `,"data":`...)
		dst = append(dst, m.Data...)
	default:
		dst = append(dst, `,"data64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, m.Data)
		dst = append(dst, '"')
	}
	if m.ContentType != plain {
		dst = append(dst, `,"contentType":`...)
		dst = wire.AppendString(dst, m.ContentType)
	}
	return append(appendHeaders(dst, m.Headers), '}')
}

// The content types of data that says no other: a string's, and all else's.
const (
	plainText = "text/plain; charset=utf-8"
	plainJSON = "application/json"
)

// standsInLine tells whether JSON can be written into a line, and be found there
// as it was.
func standsInLine(data []byte) bool {
	return json.Valid(data) && utf8.Valid(data) && !bytes.ContainsAny(data, "\r\n") && len(bytes.TrimSpace(data)) == len(data)
}

// appendHeaders appends the headers, in base64 where they are not text.
func appendHeaders(dst []byte, headers map[string]string) []byte {
	if len(headers) == 0 {
		return dst
	}
	text := true
	for k, v := range headers {
		text = text && utf8.ValidString(k) && utf8.ValidString(v)
	}
	if text {
		dst = append(dst, `,"headers":{`...)
	} else {
		dst = append(dst, `,"headers64":{`...)
	}
	for i, k := range slices.Sorted(maps.Keys(headers)) {
		v := headers[k]
		if !text {
			k, v = base64.StdEncoding.EncodeToString([]byte(k)), base64.StdEncoding.EncodeToString([]byte(v))
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = wire.AppendString(dst, k)
		dst = append(dst, ':')
		dst = wire.AppendString(dst, v)
	}
	return append(dst, '}')
}
