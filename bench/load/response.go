package load

import (
	"bytes"
	"strconv"
)

// response looks for one whole HTTP response at the beginning of data. Its size
// is 0 while some of it is still to come.
func response(data []byte) (status, size int) {
	head := bytes.Index(data, []byte("\r\n\r\n"))
	if head < 0 || len(data) < 12 {
		return 0, 0
	}
	status, _ = strconv.Atoi(string(data[9:12]))
	body := head + 4
	if value, ok := header(data[:head+2], "content-length"); ok {
		length, _ := strconv.Atoi(string(value))
		if len(data) < body+length {
			return 0, 0
		}
		return status, body + length
	}
	if _, ok := header(data[:head+2], "transfer-encoding"); ok {
		for {
			line := bytes.IndexByte(data[body:], '\n')
			if line < 0 {
				return 0, 0
			}
			length, err := strconv.ParseInt(string(bytes.TrimSpace(data[body:body+line])), 16, 32)
			if err != nil {
				return status, len(data)
			}
			body += line + 1 + int(length) + 2
			if body > len(data) {
				return 0, 0
			}
			if length == 0 {
				return status, body
			}
		}
	}
	return status, body
}

// header returns the value of a field; name is in lower case.
func header(head []byte, name string) ([]byte, bool) {
	for line := range bytes.Lines(head) {
		key, value, ok := bytes.Cut(line, []byte(":"))
		if ok && bytes.EqualFold(key, []byte(name)) {
			return bytes.TrimSpace(value), true
		}
	}
	return nil, false
}
