// Package connlimit bounds the open connections of a listener, in total and for one address,
// so that one client cannot prevent others from being served.
package connlimit

import (
	"net"
	"net/netip"
	"sync"
)

// DefaultTotal is Caps.Total for 0.
const DefaultTotal = 1024

// Caps are the most connections that may be open. Zero fields mean the defaults.
type Caps struct {
	// Total of all addresses. A further connection waits in the kernel's queue. 0 means 1024.
	Total int
	// PerAddress is the share of one address (see [AddressOf]). A further connection is
	// closed at once, because in the queue it would delay those of other addresses. 0 means
	// a quarter of Total, one at least. Behind a balancer that ends TCP, all clients have
	// its address, so there it must be Total.
	PerAddress int
}

// OrDefault has the defaults in place of zero fields.
func (c Caps) OrDefault() Caps {
	if c.Total <= 0 {
		c.Total = DefaultTotal
	}
	if c.PerAddress <= 0 {
		c.PerAddress = max(1, c.Total/4)
	}
	return c
}

// AddressOf returns what the remote address of a connection ("host:port") counts
// as in limits: an IPv4 address, or the /64 of an IPv6 address, which is the least
// that one customer has. Text that is no address yields the zero prefix.
func AddressOf(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // fails for other numbers of bits only
	return p
}

// listener keeps the caps.
type listener struct {
	net.Listener
	caps    func() Caps
	refused func(from netip.Prefix)

	mu     sync.Mutex
	room   sync.Cond // a connection was closed, or the listener
	closed bool
	open   int
	by     map[netip.Prefix]int
}

// Listen returns a listener that keeps to caps, which it asks at each accept, so
// they may change while it runs. refused is called for each connection that was
// closed because its address is at its cap; it must be fast. A connection counts
// from accept to its Close.
func Listen(ln net.Listener, caps func() Caps, refused func(from netip.Prefix)) net.Listener {
	l := &listener{Listener: ln, caps: caps, refused: refused, by: make(map[netip.Prefix]int)}
	l.room.L = &l.mu
	return l
}

// Accept waits for room below Total, then for a connection whose address has room.
func (l *listener) Accept() (net.Conn, error) {
	for {
		l.wait()
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := AddressOf(c.RemoteAddr().String())
		if l.enter(from) {
			return &conn{Conn: c, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset: the refused peer must not cost us a minute of TIME_WAIT
		}
		_ = c.Close() // over in any case
		l.refused(from)
	}
}

func (l *listener) wait() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed && l.open >= l.caps().OrDefault().Total {
		l.room.Wait()
	}
}

func (l *listener) enter(from netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[from] >= l.caps().OrDefault().PerAddress {
		return false
	}
	l.by[from]++
	l.open++
	return true
}

func (l *listener) leave(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[from]--; l.by[from] == 0 {
		delete(l.by, from)
	}
	l.open--
	l.room.Signal()
}

func (l *listener) Close() error {
	l.mu.Lock()
	l.closed = true
	l.room.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}

// conn gives its place back when it is closed.
type conn struct {
	net.Conn
	leave func()
}

func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
