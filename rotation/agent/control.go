package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/unixsocket"
)

// Limits of the control socket. Its clients are commands of an administrator.
const (
	controlConns  = 16
	controlIdle   = 30 * time.Second
	controlBody   = 10 * time.Second
	controlAnswer = 3 * time.Minute // more than a renewal takes
)

// ServeControl answers commands on ln, which is a Unix socket, until ctx ends, and closes it:
// GET /status answers with a [Status], and POST /renew?name=NAME renews an identity. Only
// root and the user of this process may connect, whatever the mode of the socket is.
func (a *Agent) ServeControl(ctx context.Context, ln net.Listener) error {
	return httpserver.Serve(ctx, &ownUsers{ln, a}, httpserver.Config{
		Handler: a.handler(),
		// The connections of a Unix socket have no address, so all count as one.
		Conns: func() httpserver.Conns { return httpserver.Conns{Total: controlConns, PerAddress: controlConns} },
		Idle:  controlIdle, BodyTimeout: controlBody, WriteTimeout: controlAnswer,
		Logger: a.log,
	})
}

// ownUsers is a listener that closes the connections of other users.
type ownUsers struct {
	net.Listener
	a *Agent
}

// Accept implements [net.Listener].
func (o *ownUsers) Accept() (net.Conn, error) {
	for {
		c, err := o.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := unixsocket.PeerUID(c)
		if err == nil && (uid == 0 || uid == os.Geteuid()) {
			return c, nil
		}
		o.a.log.Warn("a connection to the control socket was refused", "uid", uid, "err", err)
		_ = c.Close() // nothing was said
	}
}

// handler answers as [Agent.ServeControl] says.
func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, a.Status()) })
	mux.HandleFunc("POST /renew", func(w http.ResponseWriter, r *http.Request) {
		switch err := a.Renew(r.Context(), r.URL.Query().Get("name")); {
		case err == nil:
			w.WriteHeader(http.StatusNoContent)
		case errors.Is(err, ErrUnknownName):
			answer(w, http.StatusNotFound, refusal{oneLine(err)})
		default:
			answer(w, http.StatusBadGateway, refusal{oneLine(err)})
		}
	})
	return mux
}

// refusal is the body of an answer other than 2xx.
type refusal struct {
	Error string `json:"error"`
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a peer that is gone needs no answer
}

const maxAnswer = 16 << 20 // bytes

// Control talks to the control socket of a running agent.
type Control struct{ Socket string }

// Status asks for the status.
func (c Control) Status(ctx context.Context) (s Status, err error) {
	err = c.do(ctx, http.MethodGet, "/status", &s)
	return s, err
}

// Renew asks the agent to renew an identity now, and waits until it has.
func (c Control) Renew(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodPost, "/renew?name="+url.QueryEscape(name), nil)
}

// do sends a request over a connection of its own. into gets the body of an answer with status 200.
func (c Control) do(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("asking the agent: %w", err)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Socket)
	}}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("asking the agent at %s: %w", c.Socket, err)
	}
	defer func() { _ = resp.Body.Close() }() // read only
	body := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, maxAnswer))
	switch {
	case resp.StatusCode == http.StatusNoContent:
		return nil
	case resp.StatusCode == http.StatusOK && into != nil:
		if err := body.Decode(into); err != nil {
			return fmt.Errorf("asking the agent at %s: its answer is not the JSON expected", c.Socket)
		}
		return nil
	}
	var p refusal
	if err := body.Decode(&p); err != nil || p.Error == "" {
		p.Error = fmt.Sprintf("status %d", resp.StatusCode)
	}
	return errors.New("the agent: " + p.Error)
}
