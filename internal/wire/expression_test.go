package wire_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/halley-comet/halley/internal/wire"
)

func TestExpression(t *testing.T) {
	for _, test := range []struct {
		json   string
		parsed bool
	}{
		{`{"a":"b","c":[1,null,"\u003c"]}`, false},
		{`{"proto":1}`, false},
		{`{"__proto__":1}`, true},
		{`{"a":{"__proto__":1,"__proto__":2}}`, true},
		{`{"\u005f_proto__":1}`, true},
		{`{"_\u005Fproto__":"</script>"}`, true},
		{`{"__pr\u006fto__":1}`, true},
		{`"\u00"`, false},
	} {
		got := string(wire.AppendExpression(nil, []byte(test.json)))
		inner, parsed := strings.CutPrefix(got, "JSON.parse(")
		if parsed != test.parsed {
			t.Errorf("%s: got %s, want parsed %v", test.json, got, test.parsed)
			continue
		}
		if !parsed {
			if got != test.json {
				t.Errorf("%s: got %s", test.json, got)
			}
			continue
		}
		var s string
		if err := json.Unmarshal([]byte(strings.TrimSuffix(inner, ")")), &s); err != nil || s != test.json {
			t.Errorf("%s: got %s, which parses %q: %v", test.json, got, s, err)
		}
		if safe := wire.AppendScriptSafe(nil, []byte(test.json)); strings.ContainsAny(string(safe), "<>&") {
			t.Errorf("%s: %s may leave its script", test.json, safe)
		}
	}
}
