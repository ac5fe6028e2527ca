package conformance_test

import (
	"flag"
	"testing"

	"github.com/halley-comet/halley/conformance"
)

var url = flag.String("url", "", "the mount of the server to be tested, e.g. http://127.0.0.1:8080/comet")

func TestServer(t *testing.T) {
	if *url == "" {
		t.Skip("no server to test: go test ./conformance -url=http://127.0.0.1:8080/comet")
	}
	conformance.Test(t, *url)
}
