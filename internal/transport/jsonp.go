package transport

import (
	"net/http"
	"strconv"

	"github.com/halley-comet/halley/internal/wire"
)

// jsonpBody returns an answer that calls the client's function, and sets its
// headers. The comment before the call keeps the response from being taken for
// anything else that begins with a name of the client's choice (CVE-2014-4671).
func jsonpBody(h http.Header, q *Request, json []byte) []byte {
	const begin = "/**/"
	body := []byte(begin + pad(begin, q.Padding, " ") + q.Callback + "(")
	body = wire.AppendExpression(body, json)
	body = append(body, ");"...)
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	return body
}
