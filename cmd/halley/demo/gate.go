package demo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"time"
)

// gates stand before the hub, one for each page that asks for one, and do what
// proxies do to some techniques: refuse them, or let nothing come back. The
// page's client is not told. What a gate does it learns as anywhere: by what
// does not come.
//
// A page has its gate by an id that it draws, in the path: a stranger who does
// not know it cannot touch the gate, and whoever uses the hub itself meets
// none.
type gates struct {
	hub http.Handler

	mu  sync.Mutex // guards all and the gates in it
	all map[string]*gate
}

// gate is what is done to one page. There is one as long as it does anything,
// or has a stream that it could cut.
type gate struct {
	Blocked []string `json:"blocked"` // transports by the protocol's names, or everything
	Hold    bool     `json:"hold"`    // they are not refused: nothing comes
	// Turned counts the requests that were blocked, by what they were blocked
	// as, for as long as that is.
	Turned map[string]int `json:"turned"`

	streams map[*stream]bool
	used    time.Time
}

// stream is a request that has come to a gate and is being answered.
type stream struct {
	transport string
	cut       context.CancelFunc
	blocked   bool // guarded by gates.mu
}

// everything blocks all requests, as if the network were gone.
const everything = "everything"

// transports is what can be blocked.
var transports = []string{everything, "websocket", "xhr-streaming", "sse", "iframe", "long-polling", "jsonp"}

// maxGates bounds what strangers can have the server remember. The gate that
// was used longest ago goes first.
const maxGates = 1000

// gateID matches at least 80 bits in base 36.
var gateID = regexp.MustCompile(`^[0-9a-z]{16,64}$`)

func newGates(hub http.Handler) *gates {
	return &gates{hub: hub, all: make(map[string]*gate)}
}

// route adds the gates' paths to a mux.
func (g *gates) route(mux *http.ServeMux) {
	mux.HandleFunc("GET /demo/gate/{id}", g.serveState)
	mux.HandleFunc("PUT /demo/gate/{id}", g.serveSet)
	mux.HandleFunc("/demo/gate/{id}/comet/", g.servePass)
}

func newGate() *gate {
	return &gate{Blocked: []string{}, Turned: map[string]int{}, streams: make(map[*stream]bool)}
}

// at returns a page's gate, which is made if need be. The caller holds mu.
func (g *gates) at(id string) *gate {
	here, ok := g.all[id]
	if !ok {
		if len(g.all) >= maxGates {
			oldest := ""
			for other, gate := range g.all {
				if oldest == "" || gate.used.Before(g.all[oldest].used) {
					oldest = other
				}
			}
			delete(g.all, oldest)
		}
		here = newGate()
		g.all[id] = here
	}
	here.used = time.Now()
	return here
}

// tidy forgets a gate that does nothing. The caller holds mu.
func (g *gates) tidy(id string, here *gate) {
	if len(here.Blocked) == 0 && len(here.streams) == 0 && g.all[id] == here {
		delete(g.all, id)
	}
}

func (here *gate) blocks(transport string) bool {
	return slices.Contains(here.Blocked, everything) || slices.Contains(here.Blocked, transport)
}

func (g *gates) serveState(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !gateID.MatchString(id) {
		http.NotFound(w, r)
		return
	}
	g.mu.Lock()
	here, ok := g.all[id]
	if !ok {
		here = newGate()
	}
	here.used = time.Now()
	state, err := json.Marshal(here)
	g.mu.Unlock()
	if err != nil {
		panic(err) // it is made of strings and numbers
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(state)
}

// serveSet sets what a gate blocks. What is blocked and open is cut, and what
// waits behind the gate goes on to be refused or to pass when it comes again.
func (g *gates) serveSet(w http.ResponseWriter, r *http.Request) {
	// A form of a stranger's page cannot be of this type without being asked for.
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		http.Error(w, "a gate is set by application/json", http.StatusUnsupportedMediaType)
		return
	}
	var set struct {
		Blocked []string
		Hold    bool
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&set); err != nil {
		http.Error(w, "not a gate: "+err.Error(), http.StatusBadRequest)
		return
	}
	for _, name := range set.Blocked {
		if !slices.Contains(transports, name) {
			http.Error(w, "a gate blocks no such transport", http.StatusBadRequest)
			return
		}
	}
	if id := r.PathValue("id"); gateID.MatchString(id) {
		g.mu.Lock()
		here := g.at(id)
		slices.Sort(set.Blocked)
		here.Blocked = append([]string{}, slices.Compact(set.Blocked)...)
		here.Hold = set.Hold
		maps.DeleteFunc(here.Turned, func(name string, _ int) bool { return !here.blocks(name) })
		for s := range here.streams {
			if s.blocked || here.blocks(s.transport) {
				s.blocked = true
				s.cut()
			}
		}
		g.tidy(id, here)
		g.mu.Unlock()
	}
	g.serveState(w, r)
}

// servePass serves what a page asks of the hub, unless the gate blocks it.
func (g *gates) servePass(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !gateID.MatchString(id) {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	transport, err := transportOf(w, r)
	if err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	s := &stream{transport: transport, cut: cancel}

	g.mu.Lock()
	here := g.at(id)
	s.blocked = here.blocks(transport)
	hold := here.Hold
	if s.blocked {
		here.Turned[cmp.Or(transport, everything)]++
	}
	here.streams[s] = true
	blocked := s.blocked
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(here.streams, s)
		here.used = time.Now()
		g.tidy(id, here)
	}()

	if blocked {
		if hold {
			<-ctx.Done() // until the client gives up, or the gate changes
		}
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "a gate of the demo blocks this", http.StatusBadGateway)
		return
	}
	http.StripPrefix("/demo/gate/"+id, g.hub).ServeHTTP(through{w}, r.WithContext(ctx))

	g.mu.Lock()
	blocked = s.blocked
	g.mu.Unlock()
	if blocked {
		panic(http.ErrAbortHandler) // a cut, and not an end
	}
}

// through hides from the hub that it may take the connection of a stream over
// (http.Hijacker): the stream then ends with its request's context.
type through struct{ http.ResponseWriter }

func (w through) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// transportOf returns what a request subscribes by, or nothing if it does not
// subscribe. It leaves the request's body as it was.
func transportOf(w http.ResponseWriter, r *http.Request) (string, error) {
	if r.URL.Path != "/demo/gate/"+r.PathValue("id")+"/comet/subscribe" {
		return "", nil
	}
	form := r.URL.RawQuery
	if r.Method == http.MethodPost {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
		if err != nil {
			return "", err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		form += "&" + string(body)
	}
	values, err := url.ParseQuery(form)
	return values.Get("transport"), err
}
