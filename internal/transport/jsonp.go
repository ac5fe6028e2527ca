package transport

import "github.com/halley-comet/halley/internal/wire"

const jsonpType = "text/javascript; charset=utf-8"

// jsonpBody returns an answer that calls the client's function. The comment
// before the call keeps the response from being taken for anything else that
// begins with a name of the client's choice (CVE-2014-4671).
func jsonpBody(q *Request, json []byte) []byte {
	const begin = "/**/"
	body := []byte(begin + pad(begin, q.Padding, " ") + q.Callback + "(")
	body = wire.AppendExpression(body, json)
	return append(body, ");"...)
}
