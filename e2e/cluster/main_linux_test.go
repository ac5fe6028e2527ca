package cluster

import (
	"os"
	"testing"
)

func gate(t *testing.T) {
	t.Helper()
	if os.Getenv("HALLEY_E2E") == "" {
		t.Skip("runs a cluster in network namespaces: set HALLEY_E2E=1")
	}
}
