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
	"os"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/internal/wire"
)

type importCmd struct {
	dataDir
	File string `arg:"" optional:"" default:"-" help:"Where from; - is standard input (${default})."`
}

// Run stores messages in the order of their lines. All are kept: the server has
// the rules, and removes what they say when it opens the log.
func (c *importCmd) Run() error {
	ctx, stop := interruptible()
	defer stop()
	in := os.Stdin
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	everything := []engine.RetentionRule{{Pattern: "**"}}
	log, err := openLog(c.DataDir, disk.Options{Rules: everything, Limit: -1, NewEpoch: true})
	if err != nil {
		return err
	}
	i := importing{ctx: ctx, log: log}
	err = i.read(in)
	end := log.End()
	if e := log.Close(); err == nil && e != nil {
		err = e
	}
	if err == nil {
		fmt.Fprintf(os.Stderr, "halley: %d messages, up to %s\n", i.stored, end)
	}
	return err
}

// importBytes bounds the data of what is stored together.
const importBytes = 4 << 20

// An importing stores lines as messages, some at a time.
type importing struct {
	ctx    context.Context
	log    *disk.Log
	batch  []engine.Message
	bytes  int // of data in batch
	line   int // the last one read, from 1
	kept   int // the last one of which the message, if any, is stored
	stored int // messages
}

func (i *importing) read(r io.Reader) error {
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := br.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return i.fail(err)
		}
		if len(line) > 0 {
			i.line++
			if e := i.add(line); e != nil {
				return i.fail(fmt.Errorf("line %d: %w", i.line, e))
			}
		}
		if err != nil {
			break
		}
	}
	if err := i.flush(); err != nil {
		return i.fail(err)
	}
	return nil
}

// add takes a line, and stores what has come together.
func (i *importing) add(line []byte) error {
	if line = bytes.TrimSpace(line); len(line) == 0 {
		return nil
	}
	m, err := parseExported(line)
	if err != nil {
		return err
	}
	i.batch = append(i.batch, m)
	i.bytes += len(m.Data)
	if len(i.batch) < engine.MaxBatch && i.bytes < importBytes {
		return nil
	}
	return i.flush()
}

func (i *importing) flush() error {
	if len(i.batch) > 0 {
		if err := i.log.Import(i.ctx, i.batch); err != nil {
			return err
		}
	}
	i.stored, i.kept = i.stored+len(i.batch), i.line
	i.batch, i.bytes = i.batch[:0], 0
	return nil
}

// fail says what is stored in spite of the error.
func (i *importing) fail(err error) error {
	if i.stored == 0 {
		return fmt.Errorf("%w; nothing was imported", err)
	}
	return fmt.Errorf("%w; the %d messages of lines 1 to %d were imported", err, i.stored, i.kept)
}

// parseExported returns the message of a line that export wrote, or that is an
// envelope. Its time is now if the line has none.
func parseExported(line []byte) (m engine.Message, err error) {
	members, err := wire.Members(line)
	if err != nil {
		return m, err
	}
	var data64 *[]byte
	var headers64 map[string]string
	m.Time = time.Now().UnixMilli()
	fields := map[string]any{
		"id": new(string), "channel": &m.Channel, "type": &m.Type, "time": &m.Time, "data": nil, "data64": &data64,
		"contentType": &m.ContentType, "headers": &m.Headers, "headers64": &headers64,
	}
	for name, raw := range members {
		field, ok := fields[name]
		if !ok {
			return m, fmt.Errorf("%.40q is not a member of a message", name)
		}
		if field == nil {
			continue
		}
		if err := json.Unmarshal(raw, field); err != nil {
			return m, fmt.Errorf("%s: %w", name, err)
		}
	}
	if m.Time < 0 {
		return m, fmt.Errorf("time %d is negative", m.Time)
	}
	data, ok := members["data"]
	switch {
	case ok == (data64 != nil):
		return m, errors.New("want either data or data64")
	case ok:
		if err := setData(&m, data); err != nil {
			return m, err
		}
	default:
		m.Data = *data64
	}
	for k, v := range headers64 {
		name, err1 := base64.StdEncoding.DecodeString(k)
		value, err2 := base64.StdEncoding.DecodeString(v)
		if err := errors.Join(err1, err2); err != nil {
			return m, fmt.Errorf("headers64: %w", err)
		}
		if m.Headers == nil {
			m.Headers = make(map[string]string)
		}
		m.Headers[string(name)] = string(value)
	}
	return m, m.Check()
}

// setData sets data that is a JSON value, as the content type has it.
func setData(m *engine.Message, value json.RawMessage) error {
	isString := value[0] == '"'
	if m.ContentType == "" {
		if m.ContentType = plainJSON; isString {
			m.ContentType = plainText
		}
	}
	switch kind := engine.KindOf(m.ContentType); {
	case kind == engine.JSON:
		m.Data = value
	case kind == engine.Text && isString:
		var s string
		if err := json.Unmarshal(value, &s); err != nil {
			return err
		}
		m.Data = []byte(s)
	default:
		return fmt.Errorf("data of type %s: want data64", m.ContentType)
	}
	return nil
}
