package rotation

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxHandshakes is how many handshakes a listener runs at a time. Each takes 10 s at
// most; further connections wait in the queue of the kernel.
const maxHandshakes = 512

// Listener returns a listener whose connections are of type *tls.Conn and have finished
// the handshake, for instance for http.Server.Serve. A slow or refused peer holds up no
// other. The server judges accepted connections again; see [Server]. Close of the
// listener ends the handshakes under way and closes l. Nothing is accepted from l before
// the first Accept.
func (s *Server) Listener(l net.Listener) net.Listener {
	// The context of the identity is not used: a server goes on after Close of the identity.
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.id.ctx))
	return &listener{
		Listener: l, server: s, ctx: ctx, cancel: cancel,
		ready: make(chan *tls.Conn), slots: make(chan struct{}, maxHandshakes), failed: make(chan error),
	}
}

type listener struct {
	net.Listener
	server *Server
	ctx    context.Context //nolint:containedctx // of the handshakes; Accept has none
	cancel context.CancelFunc
	start  sync.Once
	wg     sync.WaitGroup
	ready  chan *tls.Conn
	slots  chan struct{}
	failed chan error // of the listener below
}

func (l *listener) Accept() (net.Conn, error) {
	l.start.Do(func() { l.wg.Go(l.accept) })
	select {
	case c := <-l.ready:
		return c, nil
	case err := <-l.failed:
		return nil, err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// accept runs the handshakes of accepted connections. It passes on errors of l as they
// are: net/http knows which are temporary, and waits before it calls Accept again.
func (l *listener) accept() {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		raw, err := l.Listener.Accept()
		if err != nil {
			<-l.slots
			select {
			case l.failed <- err:
				continue
			case <-l.ctx.Done():
				return
			}
		}
		l.wg.Go(func() { l.handshakeOne(raw) })
	}
}

func (l *listener) handshakeOne(raw net.Conn) {
	c, err := l.server.Handshake(l.ctx, raw)
	<-l.slots
	if err != nil {
		return // Handshake has logged the error
	}
	select {
	case l.ready <- c:
	case <-l.ctx.Done():
		_ = c.Close() // Accept is not called any more
	}
}

func (l *listener) Close() error {
	l.cancel()
	err := l.Listener.Close()
	l.wg.Wait()
	return err
}

type connKey struct{}

// ConnContext is for http.Server.ConnContext. By it [Server.Handler] finds the connection
// of a request. Without it, Handler does not enforce MaxAge.
func (s *Server) ConnContext(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		if own, ok := secure.NetConn().(*serverConn); ok {
			return context.WithValue(ctx, connKey{}, own)
		}
	}
	return ctx
}

// Handler judges the peer before each request as a handshake would judge it now. A peer
// that would be refused gets status 403. If the connection is draining, or the own
// certificate has another issuer since, the answer has "Connection: close", or a GOAWAY in
// HTTP/2, and requests under way finish. Requests
// without TLS are refused.
func (s *Server) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			s.id.refuse(atRequest, r.RemoteAddr, errCleartext)
			http.Error(w, "TLS is required", http.StatusForbidden)
			return
		}
		v := s.evaluateRequest(r)
		c, ours := r.Context().Value(connKey{}).(*serverConn)
		if v != (decision{}) || ours && c.isOfAnotherIssuer(s.id.Current()) {
			w.Header().Set("Connection", "close")
		}
		if v.cut != nil {
			s.id.refuse(atRequest, r.RemoteAddr, v.cut)
			http.Error(w, "the client certificate is not accepted any more", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// evaluateRequest judges the peer of a request. The decision about its certificate is
// known in most cases; Authorize is asked each time.
func (s *Server) evaluateRequest(r *http.Request) decision {
	var v decision
	now, g := time.Now(), s.id.Current()
	if c, ok := r.Context().Value(connKey{}).(*serverConn); ok {
		v, _ = c.evaluate(g, now)
	} else {
		v = g.evaluate(s.newPeerState(*r.TLS, time.Time{}), now)
	}
	if v.cut == nil {
		v.cut = s.authorize(*r.TLS)
	}
	return v
}
