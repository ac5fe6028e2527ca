package disk

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
)

var writeFormat = flag.Bool("write-format", false, "write a log of the present format to testdata, where there is none")

// TestFormats opens logs that were written in each format there has been, and
// reads what went into them. A new format gets its log by
//
//	go test ./engine/disk -run TestFormats -write-format
//
// and that is committed; those of old formats are never written again.
func TestFormats(t *testing.T) {
	for version := 1; version <= formatVersion; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			from := filepath.Join("testdata", fmt.Sprintf("format-%d", version))
			opts := Options{
				identity: func(string) string { return "" }, // a checkout is no copy
				Rules: []engine.RetentionRule{
					{Pattern: "few", Retention: engine.Retention{Count: 2, Age: 10 * 365 * 24 * time.Hour}},
				},
			}
			if _, err := os.Stat(from); *writeFormat && os.IsNotExist(err) {
				writeOldLog(t, from, opts)
			}
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
			l, err := Open(dir, opts)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if found := l.Opened(); found != (Opened{Unclean: true}) {
				t.Errorf("Opened: %+v", found)
			}
			if end := l.End(); end != (engine.Cursor{Epoch: "old", Seq: 41}) {
				t.Errorf("End is %v", end)
			}
			if _, err := l.Verify(t.Context()); err != nil {
				t.Error(err)
			}
			all := readAll(t, l, "**")
			if len(all) != 23 {
				t.Fatalf("%d messages", len(all))
			}
			if m := all[20]; m.Channel != "kind/of/json" || m.Type != "said" || m.ContentType != "application/json" ||
				m.Headers["trace"] != "1" || string(m.Data) != `{"a":1}` || m.ID.Seq != 21 || m.Time == 0 {
				t.Errorf("message 21: %+v", m)
			}
			page, err := l.Read(t.Context(), engine.Query{Channels: []string{"few"}, After: l.cursor(30)})
			if err != nil || !page.Gap || len(page.Messages) != 2 || page.Start.Seq != 39 {
				t.Errorf("Read of what was trimmed: %+v, %v", page, err)
			}
			if n := len(readAll(t, l, "keep/*")); n != 20 {
				t.Errorf("keep/* has %d messages", n)
			}
			publish(t, l, "keep/more", 1)
			if end := l.End().Seq; end != 42 {
				t.Errorf("after another message End is %d", end)
			}
		})
	}
}

// writeOldLog writes the log that the test wants. Some of it is in tables, the
// rest in the write-ahead log of a session that has not ended.
func writeOldLog(t *testing.T, dir string, opts Options) {
	t.Helper()
	opts.group = 16 // so that there are entries, and messages without
	l, err := Open(filepath.Join(t.TempDir(), "log"), opts)
	if err != nil {
		t.Fatal(err)
	}
	l.epoch = "old"
	if err := l.record(session{}, false); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		publish(t, l, fmt.Sprint("keep/", i%3), 1)
	}
	if err := l.db.Flush(); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		publish(t, l, fmt.Sprint("keep/", i%3), 1)
	}
	_, err = l.Append(t.Context(), engine.Batch{Key: "key", Messages: []engine.Message{{
		Channel: "kind/of/json", Type: "said", ContentType: "application/json", Headers: map[string]string{"trace": "1"}, Data: []byte(`{"a":1}`),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, l, "few", 20)
	for begin := time.Now(); l.Stats().Messages != 23; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("nothing is removed")
		}
	}
	// The removal has been handed to the system, which is enough for a copy.
	if err := errors.Join(l.db.LogData(nil, nil), os.CopyFS(dir, os.DirFS(l.dir)), os.Remove(filepath.Join(dir, "LOCK")), l.Close()); err != nil {
		t.Fatal(err)
	}
}
