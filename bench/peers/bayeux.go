package peers

import (
	"fmt"
	"net/netip"

	"github.com/halley-comet/halley/bench/load"
)

// bayeux is a CometD or Faye client that polls: a handshake, a subscription, and
// a connect again and again, all over one connection. It is for one connection,
// as the later steps need what the first has brought.
func bayeux(addr netip.AddrPort, path, channel string) load.Dialog {
	var id, cookie string
	const whole = "}]"
	tell := func(message string) []byte {
		var headers []string
		if cookie != "" {
			headers = []string{"Cookie: BAYEUX_BROWSER=" + cookie} // without which CometD knows nobody
		}
		return post(nil, addr, path, "application/json", []byte("["+message+"]"), headers...)
	}
	connect := func([]byte) []byte {
		return tell(fmt.Sprintf(`{"channel":"/meta/connect","clientId":%q,"connectionType":"long-polling"}`, id))
	}
	return load.Dialog{
		Steps: []load.Step{
			{Wait: whole, Send: func([]byte) []byte {
				return tell(`{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]}`)
			}},
			{Wait: whole, Send: func(answer []byte) []byte {
				id, cookie = between(answer, `"clientId":"`, `"`), between(answer, "BAYEUX_BROWSER=", "\r")
				for i := range len(cookie) {
					if cookie[i] == ';' {
						cookie = cookie[:i]
						break
					}
				}
				return tell(fmt.Sprintf(`{"channel":"/meta/subscribe","clientId":%q,"subscription":"/%s"}`, id, channel))
			}},
			{Send: connect},
		},
		Again: func(_, _ []byte) []byte { return connect(nil) },
	}
}

// publishBayeux publishes without a handshake, each message by a request.
func publishBayeux(addr netip.AddrPort, path, channel string, messages [][]byte) (requests []byte, answers int) {
	for _, message := range messages {
		body := fmt.Sprintf(`[{"channel":"/%s","data":"%s"}]`, channel, message)
		requests = post(requests, addr, path, "application/json", []byte(body))
	}
	return requests, len(messages)
}
