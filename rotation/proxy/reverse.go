package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/connlimit"
)

// Limits of HTTP towards the service. The wait for its answer has none: a peer that gives up
// ends it.
const (
	maxAnswerHeader = 256 << 10
	// backendIdle is shorter than the time after which any common server closes a connection
	// without requests. A request that is sent while the server closes is lost, and only
	// some may be sent again.
	backendIdle    = time.Second
	expectContinue = time.Second
	idleBackends   = 64
)

// errBackend is what a peer is told if there is no answer of the service.
const errBackend = "the service behind this proxy did not answer"

// httpHandler refuses what must not be passed on, and waits for its requests at the end.
type httpHandler struct {
	*meter
	next http.Handler
	idle time.Duration // of WebSockets
	open sync.WaitGroup
	most int // open requests of one address; 0 is no limit

	mu sync.Mutex // guards by
	by map[netip.Prefix]int
}

func (h *httpHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.open.Add(1)
	defer h.open.Done()
	h.requests.Add(1)
	if status, why := refuseRequest(r); status != 0 {
		h.fail(ofRequest, r.RemoteAddr, errors.New(why))
		http.Error(w, why, status)
		return
	}
	from := connlimit.AddressOf(r.RemoteAddr)
	if !h.enter(from) {
		h.fail(ofRequest, r.RemoteAddr, errBusy)
		w.Header().Set("Retry-After", "1")
		http.Error(w, errBusy.Error(), http.StatusServiceUnavailable)
		return
	}
	defer h.leave(from)
	keepWebSocketOnly(r)
	h.next.ServeHTTP(&upgradable{ResponseWriter: w, handler: h}, r)
}

// errBusy reports a request of an address with as many open ones as it may have connections.
// Over HTTP/2 it could otherwise occupy all connections to the service.
var errBusy = errors.New("this address has too many open requests")

// enter counts an open request of an address, unless it has as many as it may.
func (h *httpHandler) enter(from netip.Prefix) bool {
	if h.most == 0 {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.by[from] >= h.most {
		return false
	}
	h.by[from]++
	return true
}

func (h *httpHandler) leave(from netip.Prefix) {
	if h.most == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.by[from]--; h.by[from] == 0 {
		delete(h.by, from)
	}
}

// refuseRequest returns a status and the reason for it if a request is not passed on, or 0.
//
// A method CONNECT would make a tunnel to the service, past the headers of the proxy. TRACE
// sends back headers that the peer did not send. A target with blanks, which HTTP/2 can have, is
// read differently by different servers (RFC 9112 §3.2). One with another character that a path
// must not have would be written anew by net/url, with its %2F as slashes: such a target can be made
// to get past a filter, and is not corrected for that reason (ibid.).
func refuseRequest(r *http.Request) (status int, why string) {
	switch {
	case r.Method == http.MethodConnect, r.Method == http.MethodTrace:
		return http.StatusMethodNotAllowed, "this proxy does not pass the method on"
	case strings.ContainsFunc(r.RequestURI, func(c rune) bool { return c <= ' ' || c > '~' }),
		strings.ContainsFunc(r.Host, func(c rune) bool { return c <= ' ' || c > '~' }):
		return http.StatusBadRequest, "the target of the request has characters that it must not have"
	case !strings.HasSuffix(r.RequestURI, r.URL.RequestURI()) && r.URL.Path != "":
		return http.StatusBadRequest, "the target of the request has characters that it must not have"
	case r.ProtoMajor > 2, r.URL.Opaque != "", r.RequestURI == "*" && r.Method != http.MethodOptions: // PRI * is how HTTP/2 begins
		return http.StatusBadRequest, "the target of the request does not go with its method"
	}
	return 0, ""
}

// keepWebSocketOnly takes an upgrade to anything else than WebSocket out of a request, which
// then goes on as an ordinary one (RFC 9110 §7.8). After an upgrade to h2c the peer would
// send requests past the headers of the proxy.
func keepWebSocketOnly(r *http.Request) {
	if to := r.Header["Upgrade"]; len(to) == 1 && strings.EqualFold(to[0], "websocket") {
		return
	}
	r.Header.Del("Upgrade")
	r.Header.Del("Http2-Settings")
}

// upgradable is the answer of a request that may become a WebSocket.
type upgradable struct {
	http.ResponseWriter
	handler *httpHandler
}

// Unwrap is for http.ResponseController.
func (u *upgradable) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// Hijack returns the connection, which is cut from now on if it is idle for too long.
func (u *upgradable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buffered, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	end := newSide(c)
	w := &watched{Conn: c, end: end.end}
	peer := c.RemoteAddr().String()
	w.idle = newIdleTimer(u.handler.idle, func() {
		u.handler.fail(idle, peer, errIdle)
		end.abort()
	})
	return w, buffered, nil
}

// watched is a connection with an idleTimer.
type watched struct {
	net.Conn
	idle *idleTimer
	end  func() error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.idle.touch()
	return n, err
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.idle.touch()
	return n, err
}

// CloseWrite ends one direction; the reverse proxy looks for it.
func (w *watched) CloseWrite() error { return w.end() }

func (w *watched) Close() error {
	w.idle.stop()
	return w.Conn.Close()
}

// newReverse returns a handler that sends each request through transport, after rewrite has
// addressed it. Requests keep their target, byte for byte. Their trailers are dropped, as a
// proxy may (RFC 9110 §6.5.1): some servers merge them into the headers. Trailers of answers
// pass.
func newReverse(m *meter, transport http.RoundTripper, rewrite func(out, in *http.Request)) http.Handler {
	return &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // a service that sends bit by bit is read bit by bit
		BufferPool:    bufferPool{},
		ErrorLog:      slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
		ErrorHandler:  m.answerFailure,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.RawQuery = p.In.URL.RawQuery // the library drops what it cannot parse
			p.Out.Host, p.Out.Trailer = p.In.Host, nil
			if p.Out.Body != nil {
				p.Out.Body = &requestBody{ReadCloser: p.Out.Body}
			}
			rewrite(p.Out, p.In)
		},
	}
}

// requestBody remembers an error of reading, to tell the peer's faults from the service's.
type requestBody struct {
	io.ReadCloser
	mu     sync.Mutex // guards failed: the transport reads in another goroutine
	failed error
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.mu.Lock()
		b.failed = err
		b.mu.Unlock()
	}
	return n, err
}

// answerFailure answers a request whose answer did not come, or could not be used. r is the
// request to the service. The text has no address of the service.
func (m *meter) answerFailure(w http.ResponseWriter, r *http.Request, err error) {
	kind := broken
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		kind = unreachable
	}
	if body, ok := r.Body.(*requestBody); ok {
		body.mu.Lock()
		if body.failed != nil {
			kind = ofPeer
		}
		body.mu.Unlock()
	}
	if errors.Is(r.Context().Err(), context.Canceled) {
		kind = ofPeer // it has left
	}
	m.fail(kind, r.RemoteAddr, err)
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, errBackend, http.StatusBadGateway)
}

// bufferPool is buffers in the form of the reverse proxy.
type bufferPool struct{}

func (bufferPool) Get() []byte  { return *buffers.Get().(*[]byte) } //nolint:forcetypeassert // New makes it
func (bufferPool) Put(b []byte) { buffers.Put(&b) }

// twoTransports sends requests for WebSocket over HTTP/1.1, which HTTP/2 cannot carry, and
// others over what is configured.
type twoTransports struct{ usual, upgrades http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t twoTransports) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Upgrade") != "" {
		return t.upgrades.RoundTrip(r)
	}
	return t.usual.RoundTrip(r)
}

func newBackendTransport(b *backend, cfg ServerConfig) http.RoundTripper {
	one := backendTransport(b, cfg.Limits, false)
	if cfg.Protocol != H2C {
		return one
	}
	return twoTransports{backendTransport(b, cfg.Limits, true), one}
}

// backendTransport returns a transport to one service. It adds nothing to requests, and asks
// no other proxy.
func backendTransport(b *backend, limits Limits, http2 bool) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	return &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return b.dial(ctx) },
		Protocols:           &protocols,
		DisableCompression:  true, // else it would ask for gzip, and unpack it
		MaxConnsPerHost:     limits.MaxConns,
		MaxIdleConnsPerHost: idleBackends,
		IdleConnTimeout:     backendIdle, ExpectContinueTimeout: expectContinue,
		MaxResponseHeaderBytes: maxAnswerHeader,
		WriteBufferSize:        16 << 10, ReadBufferSize: 16 << 10,
	}
}

// setForwarded says where a request comes from (RFC 7239, and the older headers that
// services read).
func setForwarded(out, in *http.Request) {
	if host, _, err := net.SplitHostPort(in.RemoteAddr); err == nil {
		out.Header.Set("X-Forwarded-For", host)
	}
	out.Header.Set("X-Forwarded-Host", in.Host)
	out.Header.Set("X-Forwarded-Proto", "https")
}
