package load

import "testing"

func TestResponse(t *testing.T) {
	tests := []struct {
		name, data   string
		status, size int // size -1: all of it
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, -1},
		{"length, one more follows", "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\nHTTP/1.1", 201, 43},
		{"unfinished", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", 0, 0},
		{"head unfinished", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", 0, 0},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, -1},
		{"chunks unfinished", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", 0, 0},
		{"no body", "HTTP/1.1 204 No Content\r\n\r\n", 204, -1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.size < 0 {
				test.size = len(test.data)
			}
			status, size := response([]byte(test.data))
			if size != test.size || size > 0 && status != test.status {
				t.Errorf("got %d, %d; want %d, %d", status, size, test.status, test.size)
			}
		})
	}
}

func TestHistogram(t *testing.T) {
	var h Histogram
	for i := range int64(100_000) {
		h.Add(i*1000, 1)
	}
	for _, q := range []float64{0.01, 0.5, 0.99} {
		want := q * 1e8
		if got := h.Quantile(q); got < want*0.98 || got > want*1.02 {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
}
