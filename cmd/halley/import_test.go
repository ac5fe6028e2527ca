package main

import (
	"reflect"
	"testing"

	"github.com/halley-comet/halley/engine"
)

// A line that can be imported is exported as one that is imported as the same.
func FuzzImport(f *testing.F) {
	for _, line := range []string{
		`{"id":"e-1","channel":"a","time":1,"data":{"n":1.0}}`, `{"channel":"a","type":"t","data":"text","contentType":"text/html"}`, `{"channel":"a","data64":"/wA=","contentType":"image/png"}`,
		`{"channel":"a","data":"\ud800"}`, `{"channel":"a","data":1,"data64":""}`, `{"channel":"a","data":1,"headers":{"k":"v"}}`, `{"channel":"a","data":1,"headers64":{"/w==":"AA=="}}`,
		`{"channel":"a","data":"x","contentType":"application/json"}`, `{"channel":"a","data64":null}`, `{"channel":"a","data":null,"time":-1}`, `{"x":1}`, `{`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseExported(line)
		if err != nil {
			return
		}
		m.ID = engine.Cursor{Epoch: "e", Seq: 1}
		exported := appendExported(nil, &m)
		again, err := parseExported(exported)
		if err != nil {
			t.Fatalf("%q is exported as %q: %v", line, exported, err)
		}
		again.ID = m.ID
		if len(m.Data) == 0 && len(again.Data) == 0 {
			m.Data, again.Data = nil, nil
		}
		if len(m.Headers) == 0 && len(again.Headers) == 0 {
			m.Headers, again.Headers = nil, nil
		}
		if !reflect.DeepEqual(m, again) {
			t.Errorf("%q: %+v is exported as %q, which is %+v", line, m, exported, again)
		}
	})
}
