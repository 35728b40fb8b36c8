package rotation

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxHandshakes is how many handshakes one listener has under way at a time.
// More wait in the kernel's queue, for at most the 10 s that each may take.
const maxHandshakes = 512

// Listener returns a listener whose connections are *tls.Conn that passed the
// handshake, for http.Server.Serve and whoever else accepts. A slow or refused
// peer holds up no other; refused ones get to read why. The server looks after
// what was accepted; see [Server]. Closing it ends the handshakes under way and
// closes l. It starts with the first Accept.
func (s *Server) Listener(l net.Listener) net.Listener {
	// The end of the identity is not the end of what it served last.
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

// accept hands on errors as they are: net/http knows which of them pass, and
// waits before it calls Accept again.
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
		return // Handshake has logged it
	}
	select {
	case l.ready <- c:
	case <-l.ctx.Done():
		_ = c.Close() // nobody will take it
	}
}

func (l *listener) Close() error {
	l.cancel()
	err := l.Listener.Close()
	l.wg.Wait()
	return err
}

type connKey struct{}

// ConnContext is for http.Server.ConnContext: it tells [Server.Handler] which
// connection a request came over. Without it the Handler does not know MaxAge.
func (s *Server) ConnContext(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		if own, ok := secure.NetConn().(*serverConn); ok {
			return context.WithValue(ctx, connKey{}, own)
		}
	}
	return ctx
}

// Handler asks about the peer before each request as a handshake would now.
// Whoever is no longer admitted is answered 403. Who should connect anew hears
// of it with the answer, which carries "Connection: close", in HTTP/2 a GOAWAY;
// requests under way finish. Requests that did not come over TLS are refused.
func (s *Server) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			s.id.refuse(atRequest, r.RemoteAddr, errCleartext)
			http.Error(w, "TLS is required", http.StatusForbidden)
			return
		}
		v := s.evaluateRequest(r)
		if v != (decision{}) {
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

// evaluateRequest judges the peer of a request. What depends on the generation was found
// out before in most cases; Authorize is asked each time.
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
