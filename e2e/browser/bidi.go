package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// bidi is one connection of WebDriver BiDi ("Protocol", "Transport"): commands
// with a number, answered in any order, one text message each.
type bidi struct {
	conn net.Conn
	done chan struct{} // closed when the reader has ended

	mu      sync.Mutex // guards writing and what follows
	last    int
	pending map[int]chan<- answer
	err     error // why the reader ended
}

type answer struct {
	ID      int
	Result  json.RawMessage
	Error   string
	Message string
}

func dialBiDi(ctx context.Context, url string) (*bidi, error) {
	conn, early, _, err := ws.Dial(ctx, url)
	if err != nil {
		return nil, err
	}
	if early != nil {
		conn.Close()
		return nil, errors.New("the browser spoke first")
	}
	b := &bidi{conn: conn, done: make(chan struct{}), pending: make(map[int]chan<- answer)}
	go b.read()
	return b, nil
}

// read hands the answers to those who wait for them, and ends with the
// connection.
func (b *bidi) read() {
	defer close(b.done)
	for {
		text, err := wsutil.ReadServerText(b.conn)
		var a answer
		if err == nil {
			err = json.Unmarshal(text, &a)
		}
		b.mu.Lock()
		if err != nil {
			b.err = fmt.Errorf("the connection to the browser is over: %w", err)
			b.mu.Unlock()
			return
		}
		// Events have no number, and an answer may come too late.
		if waiting := b.pending[a.ID]; waiting != nil {
			waiting <- a
			delete(b.pending, a.ID)
		}
		b.mu.Unlock()
	}
}

func (b *bidi) command(ctx context.Context, method string, params, result any) error {
	waiting := make(chan answer, 1)
	b.mu.Lock()
	b.last++
	id := b.last
	text, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	if err == nil {
		err = wsutil.WriteClientText(b.conn, text)
	}
	if err != nil {
		b.mu.Unlock()
		return fmt.Errorf("%s: %w", method, err)
	}
	b.pending[id] = waiting
	b.mu.Unlock()

	select {
	case a := <-waiting:
		if a.Error != "" {
			return fmt.Errorf("%s: %s: %s", method, a.Error, a.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-b.done:
		return fmt.Errorf("%s: %w", method, b.err)
	case <-ctx.Done():
		b.mu.Lock()
		delete(b.pending, id)
		b.mu.Unlock()
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

func (b *bidi) close() {
	b.conn.Close()
	<-b.done
}
