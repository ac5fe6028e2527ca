package transport

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// byAccept lists the media types that choose a transport, in the order that
// breaks ties.
var byAccept = []struct{ media, name string }{
	{"text/event-stream", SSE},
	{"multipart/x-mixed-replace", Multipart},
	{"application/x-ndjson", XHRStreaming},
}

// negotiate chooses the transport of a request that names none: by Upgrade,
// then by Accept (RFC 9110, 12.5.1), where all media types but the three above
// stand for long-polling.
func negotiate(h http.Header) string {
	if isUpgrade(h) {
		return WebSocket
	}
	best, bestQ, bestRank := LongPolling, 0.0, len(byAccept)
	for _, line := range h.Values("Accept") {
		for _, element := range strings.Split(line, ",") {
			media, params, _ := strings.Cut(element, ";")
			media = strings.ToLower(strings.TrimSpace(media))
			if media == "" {
				continue
			}
			q, rank, name := quality(params), len(byAccept), LongPolling
			for i, a := range byAccept {
				if a.media == media {
					rank, name = i, a.name
				}
			}
			if q > bestQ || q == bestQ && q > 0 && rank < bestRank {
				best, bestQ, bestRank = name, q, rank
			}
		}
	}
	return best
}

// quality returns the weight among a media range's parameters (RFC 9110,
// 12.4.2): 1 where there is none, 0 where it is malformed.
func quality(params string) float64 {
	for _, p := range strings.Split(params, ";") {
		name, value, ok := strings.Cut(p, "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(q >= 0 && q <= 1) { // which NaN is not either
			return 0
		}
		return q
	}
	return 1
}

func isUpgrade(h http.Header) bool {
	return hasToken(h, "Upgrade", "websocket")
}

// hasToken tells whether a header that is a list of tokens has one of them,
// case aside.
func hasToken(h http.Header, name, token string) bool {
	return slices.ContainsFunc(h.Values(name), func(line string) bool {
		return slices.ContainsFunc(strings.Split(line, ","), func(t string) bool {
			return strings.EqualFold(strings.TrimSpace(t), token)
		})
	})
}
