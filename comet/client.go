package comet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A Client speaks to one server, or to the balancer before several nodes. All
// its methods may be called from any number of goroutines; its fields must not
// be changed by then.
type Client struct {
	// URL is where the protocol is mounted, e.g. http://127.0.0.1:8080/comet.
	URL string
	// HTTPClient sends the requests, WebSocket handshakes included; nil means
	// [http.DefaultClient]. Its Timeout must be 0, since it counts the time
	// that a response is held open.
	HTTPClient *http.Client
	// Header is added to every request.
	Header http.Header
	// Token, if not empty, is sent with every request as a bearer token.
	Token string
	// Backoff paces what is tried again.
	Backoff Backoff
	// Attempts is how often Publish, History and Info try in all, where trying
	// again may help; 0 means 5. Subscriptions try for ever.
	Attempts int
}

// Subscribe is [Client.Subscribe] on a Client with only a URL.
func Subscribe(ctx context.Context, url string, o Options) iter.Seq2[Event, error] {
	return (&Client{URL: url}).Subscribe(ctx, o)
}

// Publish is [Client.Publish] on a Client with only a URL.
func Publish(ctx context.Context, url string, p ...Publication) ([]string, error) {
	return (&Client{URL: url}).Publish(ctx, p...)
}

// History is [Client.History] on a Client with only a URL.
func History(ctx context.Context, url string, q Query) (*Page, error) {
	return (&Client{URL: url}).History(ctx, q)
}

// Info is [Client.Info] on a Client with only a URL.
func Info(ctx context.Context, url string) (*ServerInfo, error) {
	return (&Client{URL: url}).Info(ctx)
}

// request makes a request for a path under the mount.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Request, error) {
	target := strings.TrimSuffix(c.URL, "/") + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if r.URL.Scheme != "http" && r.URL.Scheme != "https" || r.URL.Host == "" {
		return nil, fmt.Errorf("comet: URL %q: want http:// or https:// and a host", c.URL)
	}
	for name, values := range c.Header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	return r, nil
}

func (c *Client) send(r *http.Request) (*http.Response, error) {
	if c.HTTPClient != nil {
		return c.HTTPClient.Do(r)
	}
	return http.DefaultClient.Do(r)
}

// maxAnswer bounds the body of an answer that is read whole, in bytes.
const maxAnswer = 64 << 20

// call sends what request makes until there is an answer of 200, whose body it
// returns, or an error for which trying again is no use.
func (c *Client) call(ctx context.Context, request func() (*http.Request, error)) ([]byte, error) {
	attempts := c.Attempts
	if attempts == 0 {
		attempts = 5
	}
	for attempt := 0; ; attempt++ {
		r, err := request()
		if err != nil {
			return nil, err
		}
		body, wait, err := c.answer(r)
		if err == nil || ctx.Err() != nil || attempt+1 >= attempts {
			return body, err
		}
		if p, ok := errors.AsType[*Problem](err); ok && !p.Temporary() {
			return nil, err
		}
		if sleep(ctx, wait+c.Backoff.delay(attempt, 0)) != nil {
			return nil, err
		}
	}
}

// answer sends one request. The duration is what the server asked to wait
// before another.
func (c *Client) answer(r *http.Request) ([]byte, time.Duration, error) {
	resp, err := c.send(r)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, retryAfter(resp), readProblem(resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("comet: answer of more than %d bytes", maxAnswer)
	}
	return body, 0, err
}
