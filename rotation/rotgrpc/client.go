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

// Client is a [grpc.ClientConnInterface], what generated code calls a cc. It
// is safe for concurrent use.
type Client struct {
	id        *rotation.Identity
	transport *rotation.Transport
	target    string
	opts      []grpc.DialOption
	stop      func() // of the subscription
	current   atomic.Pointer[generationConn]

	mu     sync.Mutex // one successor at a time; never held across I/O
	conns  map[*generationConn]struct{}
	closed bool
	ending sync.WaitGroup
}

// NewClient returns a client of target, as grpc.NewClient takes it, that
// connects with its first call. From now on candidates without clientAuth are
// refused.
//
// Of tls, the fields about versions and about who the server is are used:
// MinVersion, CipherSuites, ServerName, AuthorizeServer, Trust. grpc-go makes
// the connections and the requests, so HTTP1Only, Proxy, ProxyTrust and
// DialContext are refused (see grpc.WithContextDialer), and limits and times
// have no effect. Transport credentials among opts have no effect either.
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
	// So that a client that makes no calls lets go of its old connection too.
	c.stop = id.Subscribe(func(change rotation.Change) {
		if change.Err == nil {
			_, _ = c.switchGeneration() // the next call tells
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

// Close cuts all connections, calls under way included, and waits for what
// that ends; further calls fail. It is idempotent.
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

// acquireCurrent counts a call into the connection of the generation in effect. In the usual
// case that is two atomic loads, a comparison and an uncontended lock.
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
		// Superseded between the load and here, or closed.
		if c.current.Load() == l {
			return nil, status.Error(codes.Canceled, "rotgrpc: the client is closed")
		}
	}
}

// switchGeneration makes the connection of the generation in effect the current one. The
// successor is visible before the predecessor refuses calls: whoever is refused
// finds it on the next load.
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
		// The transport cuts the connections at the deadline, by the wall clock.
		// This ends the calls that nobody listens to, which would keep a ClientConn.
		old.timer = time.AfterFunc(c.id.DrainTimeout(), old.idle)
		if old.supersede() {
			c.end(old)
		}
	}
	return l, nil
}

// end closes a connection in the background: a ClientConn may take a moment, and the
// call whose end this is should not. The caller holds c.mu.
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

// generationConn is the ClientConn of one generation with the calls that are under way.
type generationConn struct {
	gen   *rotation.Generation
	cc    *grpc.ClientConn
	idle  func()      // closes it
	timer *time.Timer // of the deadline, once superseded; guarded by Client.mu

	mu         sync.Mutex // guards what follows
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
