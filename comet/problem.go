package comet

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// A Problem is an error that the server answered (RFC 9457), be it with a
// status or, where none could be shown, in an error control.
type Problem struct {
	// Status is the HTTP status.
	Status int `json:"status"`
	// Code is from the protocol's closed list; empty if the answer is not
	// Halley's own but, say, that of a proxy.
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	// Line is the line of a batch that was refused, from 1; 0 if the problem
	// is with no line.
	Line int `json:"line"`
}

func (p *Problem) Error() string {
	s := fmt.Sprintf("comet: server answered %d", p.Status)
	if p.Code != "" {
		s += " " + p.Code
	}
	switch {
	case p.Detail != "":
		s += ": " + p.Detail
	case p.Title != "":
		s += ": " + p.Title
	}
	if p.Line > 0 {
		s += fmt.Sprintf(" (line %d)", p.Line)
	}
	return s
}

// Temporary tells whether the same request may succeed later.
func (p *Problem) Temporary() bool {
	switch p.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return p.Status >= 500
}

// maxProblem is as much of an error's body as is read, in bytes.
const maxProblem = 64 << 10

func readProblem(resp *http.Response) *Problem {
	p := &Problem{}
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media == "application/problem+json" {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
		// A body that does not parse says nothing: the status remains.
		if json.Unmarshal(body, p) != nil {
			p = &Problem{}
		}
	}
	p.Status = resp.StatusCode
	if p.Title == "" {
		p.Title = http.StatusText(resp.StatusCode)
	}
	return p
}

// retryAfter returns how long a response asks to wait (RFC 9110, 10.2.3).
func retryAfter(resp *http.Response) time.Duration {
	v := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}
