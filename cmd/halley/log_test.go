package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
)

func textsOf(messages []comet.Message) string {
	var texts []string
	for _, m := range messages {
		texts = append(texts, m.Text())
	}
	return strings.Join(texts, " ")
}

// TestExportImport wants every kind of message to come out of an import as it
// went into the log that was exported.
func TestExportImport(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	var list []engine.Message
	for contentType, datas := range map[string][]string{
		"text/plain; charset=utf-8": {"", "text", "a\r\nb\x00\"\\\u2028", `{"json":1}`},
		"text/html":                 {"<b>"},
		"application/json":          {`{"a": [1.0, 1e5]}`, " {}\n", "{\n}", `"string"`, "null", "1", `"` + "\u2028" + `"`, "not JSON", ""},
		"application/x+json":        {`{}`, `"string"`, "\t0"},
		"application/octet-stream":  {"", "\xff\x00", "text"},
		"image/png":                 {"\x89PNG"},
	} {
		for _, data := range datas {
			list = append(list, engine.Message{Channel: "kinds", ContentType: contentType, Data: []byte(data)})
		}
	}
	for _, headers := range []map[string]string{{"traceparent": "00-1", "": "", "ü\n": "\u2028"}, {"a": "\xff", "b": "c"}, {"\xfe": ""}} {
		list = append(list, engine.Message{Channel: "headers/a", Type: "ty\"pe", ContentType: "text/plain", Headers: headers})
	}
	for i := range 2100 { // some pages and batches
		list = append(list, engine.Message{Channel: fmt.Sprint("many/", i%7), ContentType: "text/plain", Data: bytes.Repeat([]byte("x"), i%100)})
	}
	for range 5 {
		list = append(list, engine.Message{Channel: "large", ContentType: "image/png", Data: bytes.Repeat([]byte("x"), 1<<20)})
	}
	log, err := disk.Open(from, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(list); i += 100 {
		if _, err := log.Append(t.Context(), engine.Batch{Messages: list[i:min(i+100, len(list))]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(dir, "file")
	mustRun(t, "log", "export", "--data-dir", from, file)
	mustRun(t, "log", "import", "--data-dir", to, file)
	want, got := messagesOf(t, from), messagesOf(t, to)
	if len(want) != len(list) || len(got) != len(want) {
		t.Fatalf("%d messages were exported as %d and imported as %d", len(list), len(want), len(got))
	}
	for i, m := range got {
		w := want[i]
		if m.Channel != w.Channel || m.Type != w.Type || m.ContentType != w.ContentType || m.Time != w.Time ||
			!bytes.Equal(m.Data, w.Data) || !maps.Equal(m.Headers, w.Headers) {
			t.Errorf("message %d is %+v, was %+v", i+1, m, w)
		}
		if m.ID.Seq != uint64(i+1) || m.ID.Epoch == w.ID.Epoch {
			t.Errorf("message %d is at %v, was at %v", i+1, m.ID, w.ID)
		}
	}
	exported, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`(?m)^{"id":"[^"]*"`)
	again := mustRun(t, "log", "export", "--data-dir", to)
	if id.ReplaceAllString(again, "") != id.ReplaceAllString(string(exported), "") {
		t.Error("what was imported is exported otherwise")
	}
	if _, stderr, err := run(t, nil, "log", "export", "--data-dir", to, file); err == nil || !strings.Contains(stderr, "file exists") {
		t.Errorf("export to a file that is there: %v\n%s", err, stderr)
	}

	// Into a log that has messages: after them, in a new epoch.
	epoch := got[0].ID.Epoch
	if _, stderr, err := run(t, bytes.NewReader(exported), "log", "import", "--data-dir", to); err != nil {
		t.Fatalf("import from standard input: %v\n%s", err, stderr)
	}
	if got = messagesOf(t, to); len(got) != 2*len(list) || got[0].ID.Epoch == epoch {
		t.Errorf("imported twice: %d messages, from %v", len(got), got[0].ID)
	}
}

func messagesOf(t *testing.T, dir string) []*engine.Message {
	t.Helper()
	log, err := disk.Open(dir, disk.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var all []*engine.Message
	q := engine.Query{Channels: []string{"**"}}
	for {
		page, err := log.Read(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Messages...)
		if !page.More {
			return all
		}
		q.After = page.End
	}
}

// TestImportFault tells which line is wrong, and what is imported in spite of
// it.
func TestImportFault(t *testing.T) {
	good := `{"channel":"a","data":1}` + "\n"
	for line, want := range map[string]string{
		`{"channel":"a","data":1`:              "not valid JSON",
		`[]`:                                   "want a JSON object",
		`{"channel":"a/*","data":1}`:           "wildcard",
		`{"channel":"a"}`:                      "want either data or data64",
		`{"channel":"a","data":1,"data64":""}`: "want either data or data64",
		`{"channel":"a","data64":"?"}`:         "data64: ",
		`{"channel":"a","data":1,"contentType":"text/plain"}`:            "want data64",
		`{"channel":"a","data":"1","contentType":"image/png"}`:           "want data64",
		`{"channel":"a","data":1,"time":"now"}`:                          "time: ",
		`{"channel":"a","data":1,"time":-1}`:                             "time -1 is negative",
		`{"channel":"a","data":1,"type":"open"}`:                         "reserved",
		`{"channel":"a","data":1,"Header":{}}`:                           `"Header" is not a member of a message`,
		`{"control":"heartbeat","id":"x-1"}`:                             `"control" is not a member of a message`,
		`{"channel":"a","data":1,"headers64":{"?":""}}`:                  "headers64: ",
		`{"channel":"a","data64":"/w==","contentType":"text/plain"}`:     "not UTF-8",
		`{"channel":"a","data":1,"contentType":"application/json;\"\""}`: "not a media type",
	} {
		dir := filepath.Join(t.TempDir(), "data")
		_, stderr, err := run(t, strings.NewReader(good+"\n"+line+"\n"+good), "log", "import", "--data-dir", dir)
		if err == nil || !strings.HasPrefix(stderr, "halley: line 3: ") || !strings.Contains(stderr, want) || !strings.HasSuffix(stderr, "; nothing was imported\n") {
			t.Errorf("%s: %v, %s, want line 3: %s", line, err, stderr, want)
		}
		if got := messagesOf(t, dir); len(got) != 0 {
			t.Errorf("%s: %d messages were imported", line, len(got))
		}
	}

	dir := filepath.Join(t.TempDir(), "data")
	_, stderr, err := run(t, strings.NewReader(strings.Repeat(good, 2500)+"{}"), "log", "import", "--data-dir", dir)
	if err == nil || !strings.HasPrefix(stderr, "halley: line 2501: ") || !strings.HasSuffix(stderr, "; the 2000 messages of lines 1 to 2000 were imported\n") {
		t.Errorf("a fault at the end: %v, %s", err, stderr)
	}
	if got := messagesOf(t, dir); len(got) != 2000 {
		t.Errorf("a fault at the end: %d messages were imported", len(got))
	}
}

// TestImportRetention wants an import to remove nothing, and the server to hold
// its rules for what was imported.
func TestImportRetention(t *testing.T) {
	dir := t.TempDir()
	config, data := filepath.Join(dir, "halley.yaml"), filepath.Join(dir, "data")
	if err := os.WriteFile(config, []byte("listen: 127.0.0.1:1\nretain-count: 5\nchannels:\n  - pattern: old/*\n    retain-age: 1h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := strings.Repeat(`{"channel":"old/a","data":1,"time":1700000000000}`+"\n", 3) + strings.Repeat(`{"channel":"a","data":1}`+"\n", 20)
	if _, stderr, err := run(t, strings.NewReader(lines), "log", "import", "--data-dir", data); err != nil {
		t.Fatalf("import: %v\n%s", err, stderr)
	}
	if n := len(messagesOf(t, data)); n != 23 {
		t.Errorf("%d messages were imported, want 23", n)
	}
	s := serve(t, data, "--config", config, "--listen", "127.0.0.1:0")
	for range 100 {
		if out := mustRun(t, "log", "stats", "--data-dir", data); strings.Contains(out, "messages   5\n") {
			return
		}
	}
	t.Errorf("kept is\n%s%s", mustRun(t, "log", "stats", "--data-dir", data), s.printed())
}

// TestVerify wants damage to be told, and the command to fail.
func TestVerify(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if _, stderr, err := run(t, nil, "log", "verify", "--data-dir", dir); err == nil || !strings.Contains(stderr, dir+": there is no log") {
		t.Errorf("verify of nothing: %v\n%s", err, stderr)
	}
	var lines strings.Builder
	for range 5000 {
		fmt.Fprintf(&lines, `{"channel":"a","data":"%s%s%s"}`+"\n", rand.Text(), rand.Text(), rand.Text())
	}
	if _, stderr, err := run(t, strings.NewReader(lines.String()), "log", "import", "--data-dir", dir); err != nil {
		t.Fatalf("import: %v\n%s", err, stderr)
	}
	s := serve(t, dir) // which moves what is imported from the log into a table
	s.stop(syscall.SIGTERM)
	if out := mustRun(t, "log", "verify", "--data-dir", dir); !strings.HasPrefix(out, "ok, up to ") || !strings.Contains(out, "\nmessages   5000\nchannels   1\n") {
		t.Errorf("verify: %s", out)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("tables are %v, %v", tables, err)
	}
	for _, table := range tables {
		b, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) < 50_000 {
			continue // what a new log begins with
		}
		b[len(b)/3] ^= 1 // the first that has messages, the oldest
		if err := os.WriteFile(table, b, 0o600); err != nil {
			t.Fatal(err)
		}
		break
	}
	_, stderr, err := run(t, nil, "log", "verify", "--data-dir", dir)
	if err == nil || !strings.Contains(stderr, "corrupt") || !strings.Contains(stderr, dir) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("verify of what is damaged: %v\n%s", err, stderr)
	}
	// What comes before the damage can be had.
	stdout, stderr, err := run(t, nil, "log", "export", "--data-dir", dir)
	if n := strings.Count(stdout, "\n"); err == nil || !strings.Contains(stderr, "corrupt") || n == 0 || n >= 5000 {
		t.Errorf("export of what is damaged: %d messages, %v\n%s", n, err, stderr)
	}
}
