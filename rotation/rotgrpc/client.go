package rotgrpc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/rotation"
)

var _ grpc.ClientConnInterface = (*Client)(nil)

// Client is a [grpc.ClientConnInterface], which generated code takes as its cc. It is safe
// for concurrent use.
type Client struct {
	id        *rotation.Identity
	transport *rotation.Transport
	target    string
	opts      []grpc.DialOption
	stop      func() // of the subscription
	current   atomic.Pointer[generationConn]

	mu     sync.Mutex // guards conns, closed and the change of current; never held across I/O
	conns  map[*generationConn]struct{}
	closed bool
	ending sync.WaitGroup
}

// NewClient returns a client of target, which is as grpc.NewClient takes it. It connects
// with its first call. From now on candidates without clientAuth are refused.
//
// Of tls it uses MinVersion, CipherSuites, ServerName, AuthorizeServer and Trust. It
// refuses HTTP1Only, Proxy, ProxyTrust and DialContext, because grpc-go makes the
// connections (see grpc.WithContextDialer). Limits and times in tls have no effect, and
// neither have transport credentials in opts.
func NewClient(id *rotation.Identity, target string, tls rotation.TransportOptions, opts ...grpc.DialOption) (*Client, error) {
	if tls.HTTP1Only || tls.Proxy != nil || tls.ProxyTrust != nil || tls.DialContext != nil {
		return nil, fmt.Errorf("making a client of %s: HTTP1Only, Proxy, ProxyTrust and DialContext do not apply to gRPC", target)
	}
	transport, err := id.Transport(tls)
	if err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", target, err)
	}
	c := &Client{id: id, transport: transport, target: target, conns: map[*generationConn]struct{}{}}
	c.opts = append(slices.Clone(opts), grpc.WithTransportCredentials(clientCredentials{c.transport}))
	if _, err := c.switchGeneration(); err != nil {
		_ = transport.Close() // unused
		return nil, err
	}
	// So that the old connection is closed even if there are no calls.
	c.stop = id.Subscribe(func(change rotation.Change) {
		if change.Err == nil {
			_, _ = c.switchGeneration() // the next call returns the error
		}
	})
	return c, nil
}

// Invoke implements [grpc.ClientConnInterface]: one unary call.
func (c *Client) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	l, err := c.acquireCurrent()
	if err != nil {
		return err
	}
	defer l.release()
	return l.cc.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements [grpc.ClientConnInterface].
func (c *Client) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	l, err := c.acquireCurrent()
	if err != nil {
		return nil, err
	}
	h := &heldStream{release: sync.OnceFunc(l.release), single: !desc.ServerStreams}
	h.ClientStream, err = l.cc.NewStream(ctx, desc, method, append(slices.Clone(opts), h.cancelled(ctx))...)
	if err != nil {
		h.release()
		return nil, err
	}
	return h, nil
}

// Close cuts all connections, calls under way included, and waits until they are closed.
// Further calls fail. It may be called again.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	for l := range c.conns {
		c.end(l)
	}
	c.mu.Unlock()
	c.stop()
	c.ending.Wait()
	return c.transport.Close()
}

// acquireCurrent returns the connection of the generation in effect, with one more call
// counted in it. The caller ends the call with release.
func (c *Client) acquireCurrent() (*generationConn, error) {
	for {
		l := c.current.Load()
		if l.gen != c.id.Current() {
			var err error
			if l, err = c.switchGeneration(); err != nil {
				return nil, err
			}
		}
		if l.acquire() {
			return l, nil
		}
		// It was superseded after the load, or the client is closed.
		if c.current.Load() == l {
			return nil, status.Error(codes.Canceled, "rotgrpc: the client is closed")
		}
	}
}

// switchGeneration makes a connection of the generation in effect the current one. The
// successor is stored before the predecessor refuses calls, so that a call which the
// predecessor refuses finds the successor with the next load.
func (c *Client) switchGeneration() (*generationConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, status.Error(codes.Canceled, "rotgrpc: the client is closed")
	}
	old, gen := c.current.Load(), c.id.Current()
	if old != nil && old.gen == gen {
		return old, nil
	}
	cc, err := grpc.NewClient(c.target, c.opts...) // connects with the first call
	if err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", c.target, err)
	}
	l := &generationConn{gen: gen, cc: cc}
	l.idle = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.end(l)
	}
	c.conns[l] = struct{}{}
	c.current.Store(l)
	if old != nil {
		// The transport cuts the network connections at the deadline. The timer closes the
		// ClientConn too, which a call that is never received from would keep open.
		old.timer = time.AfterFunc(c.id.DrainTimeout(), old.idle)
		if old.supersede() {
			c.end(old)
		}
	}
	return l, nil
}

// end closes a connection in the background, because a ClientConn may take some time and
// the call that ends must not wait. The caller holds c.mu.
func (c *Client) end(l *generationConn) {
	if _, there := c.conns[l]; !there {
		return
	}
	delete(c.conns, l)
	l.supersede()
	if l.timer != nil {
		l.timer.Stop()
	}
	c.ending.Go(func() { _ = l.cc.Close() }) // fails only if it is closed already
}

// generationConn is the ClientConn of one generation, with a count of its calls.
type generationConn struct {
	gen   *rotation.Generation
	cc    *grpc.ClientConn
	idle  func()      // closes cc
	timer *time.Timer // of the deadline, once superseded; guarded by Client.mu

	mu         sync.Mutex // guards the fields below
	calls      int
	superseded bool
}

func (l *generationConn) acquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.superseded {
		return false
	}
	l.calls++
	return true
}

func (l *generationConn) release() {
	l.mu.Lock()
	l.calls--
	last := l.superseded && l.calls == 0
	l.mu.Unlock()
	if last {
		l.idle()
	}
}

// supersede refuses further calls and reports whether none is under way.
func (l *generationConn) supersede() (idle bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.superseded = true
	return l.calls == 0
}
