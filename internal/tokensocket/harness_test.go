package tokensocket

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/unixsocket"
)

// patience is how long a test waits for what must happen on a busy machine, too.
const patience = 2 * time.Minute

// world is a socket on a real client of a real token endpoint.
type world struct {
	t      *testing.T
	stack  *ingesttest.Stack
	client *ingestclient.Client
	path   string
	logs   *logtest.Buffer

	mu       sync.Mutex // guards outcomes
	outcomes map[string]int

	stop func() error // idempotent; the error of Serve
}

func newWorld(t *testing.T, edits ...func(*ingestclient.Config)) *world {
	t.Helper()
	w := &world{t: t, stack: ingesttest.Start(t, ingesttest.Options{}), path: filepath.Join(t.TempDir(), "token.sock"), logs: &logtest.Buffer{}, outcomes: map[string]int{}}
	cfg := w.stack.Config()
	cfg.Logger = slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, edit := range edits {
		edit(&cfg)
	}
	var err error
	if w.client, err = ingestclient.New(cfg, w.stack.Identity); err != nil {
		t.Fatal(err)
	}
	ln, err := unixsocket.Listen(t.Context(), unixsocket.Socket{Path: w.path})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, ln, Config{Client: w.client, Logger: cfg.Logger, Observer: w.observe})
	}()
	w.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("serving: %v", err)
		}
		_ = w.client.Close()
	})
	return w
}

func (w *world) observe(outcome string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outcomes[outcome]++
}

func (w *world) count(outcome string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.outcomes[outcome]
}

// over is an HTTP client of the socket.
func over(path string) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}

// reply is what a test looks at.
type reply struct {
	status int
	header http.Header
	body   string
}

func (w *world) do(req *http.Request) reply {
	w.t.Helper()
	resp, err := over(w.path).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

func (w *world) get() reply {
	w.t.Helper()
	return w.do(w.request(http.MethodGet, "/token", "", ""))
}

func (w *world) reject(token string) reply {
	w.t.Helper()
	return w.do(w.request(http.MethodPost, "/token/reject", "application/x-www-form-urlencoded", url.Values{"token": {token}}.Encode()))
}

func (w *world) request(method, path, contentType, body string) *http.Request {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	return req
}

// token is the answer to a GET that must succeed.
func (w *world) token() Answer {
	w.t.Helper()
	r := w.get()
	var a Answer
	if err := json.Unmarshal([]byte(r.body), &a); err != nil || r.status != http.StatusOK {
		w.t.Fatalf("status %d, %v: %s", r.status, err, r.body)
	}
	return a
}
