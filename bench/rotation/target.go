package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	serverDelay = 3 * time.Millisecond  // of the server per request: some are always in flight when a rotation comes
	streamEvery = 20 * time.Millisecond // between the bytes of the long stream
	serialName  = "Client-Serial"
	lastByte    = '!'
)

// target is the server that every strategy meets: static TLS, mutual, and a
// memory of which connection belongs to which certificate.
type target struct {
	addr   string
	server *http.Server
	finish chan struct{} // closed: long streams end well
	done   chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func newTarget(ctx context.Context, id identity) (*target, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &target{addr: ln.Addr().String(), finish: make(chan struct{}), done: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/work", work)
	mux.HandleFunc("/stream", t.stream)
	t.server = &http.Server{
		Handler: mux, ConnState: t.count, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), // connections are cut here on purpose
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id.cert},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: id.pool(),
		},
	}
	go func() {
		defer close(t.done)
		_ = t.server.ServeTLS(ln, "", "") // returns when closed
	}()
	return t, nil
}

func (t *target) shutdown() {
	_ = t.server.Close() // cuts what is left; that was counted before
	<-t.done
}

func (t *target) count(c net.Conn, state http.ConnState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch state {
	case http.StateNew:
		t.conns[c] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(t.conns, c)
	}
}

// left counts open connections, and those of them that do not speak for serial.
func (t *target) left(serial string) (all, old int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		all++
		peers := c.(*tls.Conn).ConnectionState().PeerCertificates
		if len(peers) == 0 || peers[0].SerialNumber.String() != serial {
			old++
		}
	}
	return all, old
}

func work(w http.ResponseWriter, r *http.Request) {
	pause(r.Context(), serverDelay)
	w.Header().Set(serialName, r.TLS.PeerCertificates[0].SerialNumber.String())
	_, _ = io.WriteString(w, "ok") // a client that is gone has failed at its own end
}

// stream sends a byte now and then until finish, and then lastByte.
func (t *target) stream(w http.ResponseWriter, r *http.Request) {
	for {
		if _, err := w.Write([]byte{'.'}); err != nil {
			return
		}
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-t.finish:
			_, _ = w.Write([]byte{lastByte}) // as above
			return
		case <-r.Context().Done():
			return
		case <-time.After(streamEvery):
		}
	}
}

// follow reads a long stream to its end and says whether it ended well.
func follow(body io.ReadCloser) error {
	defer func() { _ = body.Close() }() // read to the end, or broken
	data, err := io.ReadAll(body)
	if err == nil && (len(data) == 0 || data[len(data)-1] != lastByte) {
		err = errors.New("the stream stopped early")
	}
	return err
}

// pause waits for d and reports whether ctx lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
