package transport

import (
	"net/http"
	"strconv"

	"github.com/halley-comet/halley/internal/wire"
)

// writeJSONP answers with a call of the client's function. The comment before
// it keeps the response from being taken for anything else that begins with a
// name of the client's choice (CVE-2014-4671).
func writeJSONP(w http.ResponseWriter, q *Request, json []byte) {
	const begin = "/**/"
	body := []byte(begin + pad(begin, q.Padding, " ") + q.Callback + "(")
	body = wire.AppendExpression(body, json)
	body = append(body, ");"...)
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client is told or is gone
}
