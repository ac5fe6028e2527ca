package halley_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGuarantees wants every test that docs/guarantees.md names to exist.
func TestGuarantees(t *testing.T) {
	doc, err := os.ReadFile("docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || path == "guarantees_test.go" ||
			!strings.HasSuffix(path, "_test.go") && !strings.Contains(path, "enginetest") && !strings.Contains(path, "transporttest") {
			return err
		}
		b, err := os.ReadFile(path)
		source.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`(?:(Test\\w+)|enginetest/([\\w/]+)|transporttest/([\\w/]+))[^`]*`").FindAllStringSubmatch(string(doc), -1)
	for _, name := range names {
		want := `name: "` + name[2] + `"`
		switch {
		case name[1] != "":
			want = "func " + name[1] + "(t *testing.T)"
		case name[3] != "":
			want = `"` + name[3][strings.LastIndexByte(name[3], '/')+1:] + `"`
		case strings.HasSuffix(name[2], "/"): // all of a group
			want = `name: "` + name[2]
		}
		if !strings.Contains(source.String(), want) {
			t.Errorf("docs/guarantees.md names %s, which there is not", name[0])
		}
	}
	if len(names) < 40 {
		t.Errorf("docs/guarantees.md names %d tests", len(names))
	}
}
