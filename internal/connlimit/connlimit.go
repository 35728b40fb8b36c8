// Package connlimit bounds the open connections of a listener, in total and for one address,
// so that one client cannot prevent others from being served. Connections of authenticated
// peers that only wait can be parked: they have caps of their own.
//
// Invariants:
//
//   - A connection is in exactly one count at a time, and in none after its Close
//     (TestPark, and the tests of package httpserver).
//   - A parked connection that has to leave is never in the way of others: it finds room
//     in the caps, or it is closed (TestParkedByOneOwner).
package connlimit

import (
	"errors"
	"net"
	"net/netip"
	"slices"
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

// Parking are the most connections that may be parked, see [Park].
type Parking struct {
	// Total of all owners. A further connection is not parked. 0 means none.
	Total int
	// PerOwner is the share of one owner. With a further connection of it, its oldest one
	// counts in the caps of the listener again, or is closed if there is no room. 0 means
	// no limit.
	PerOwner int
}

// listener keeps the caps.
type listener struct {
	net.Listener
	caps    func() Caps
	refused func(from netip.Prefix)

	mu     sync.Mutex
	room   sync.Cond // a connection was closed or parked, or the listener was closed
	closed bool
	open   int // without those that are parked
	by     map[netip.Prefix]int
	parked int
	owners map[string][]*conn // parked connections, the oldest first
}

// Listen returns a listener that keeps to caps, which it asks at each accept, so
// they may change while it runs. refused is called for each connection that was
// closed because its address is at its cap; it must be fast. A connection counts
// from accept to its Close, except while it is parked.
func Listen(ln net.Listener, caps func() Caps, refused func(from netip.Prefix)) net.Listener {
	l := &listener{Listener: ln, caps: caps, refused: refused, by: make(map[netip.Prefix]int), owners: make(map[string][]*conn)}
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
			return &conn{Conn: c, listener: l, from: from}, nil
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
	l.count(from)
	return true
}

// count adds a connection to the caps. The caller holds mu, as for the next two.
func (l *listener) count(from netip.Prefix) {
	l.by[from]++
	l.open++
}

func (l *listener) uncount(from netip.Prefix) {
	if l.by[from]--; l.by[from] == 0 {
		delete(l.by, from)
	}
	l.open--
	l.room.Signal()
}

// unpark takes a connection out of those that are parked.
func (l *listener) unpark(c *conn) {
	rest := slices.DeleteFunc(l.owners[c.owner], func(o *conn) bool { return o == c })
	if l.owners[c.owner] = rest; len(rest) == 0 {
		delete(l.owners, c.owner)
	}
	l.parked--
	c.parked, c.owner = false, ""
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
	listener *listener
	from     netip.Prefix

	// Guarded by listener.mu:
	closed bool
	parked bool
	owner  string
}

// NetConn returns the connection below, as that of tls.Conn does.
func (c *conn) NetConn() net.Conn { return c.Conn }

// Close closes the connection. Closing twice gives the place back once.
func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

func (c *conn) leave() {
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.closed:
	case c.parked:
		l.unpark(c)
	default:
		l.uncount(c.from)
	}
	c.closed = true
}

// Errors of [Park].
var (
	ErrNotCounted = errors.New("the connection is not one that a listener with caps has accepted")
	ErrFull       = errors.New("too many connections are parked")
)

// Park takes a connection out of the caps of its listener, until it is closed. It is for
// connections of authenticated peers that stay open for long and are idle nearly all the
// time: they must not use up the room of others. c is what Accept has returned, or a
// connection over it with a method NetConn, as tls.Conn has one. owner is who has the
// connection, as the caller has authenticated it. A connection that is parked already
// stays so. The error is [ErrFull] or [ErrNotCounted].
func Park(c net.Conn, owner string, most Parking) error {
	counted, ok := c.(*conn)
	for !ok {
		over, layered := c.(interface{ NetConn() net.Conn })
		if !layered {
			return ErrNotCounted
		}
		c = over.NetConn()
		counted, ok = c.(*conn)
	}
	surplus, err := counted.listener.park(counted, owner, most)
	if surplus != nil {
		return errors.Join(err, surplus.Close())
	}
	return err
}

// park does what [Park] says, and returns the connection that has to be closed, or nil.
func (l *listener) park(c *conn, owner string, most Parking) (surplus *conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.closed:
		return nil, net.ErrClosed
	case c.parked:
		return nil, nil
	case l.parked >= most.Total:
		return nil, ErrFull
	}
	l.uncount(c.from)
	c.parked, c.owner = true, owner
	l.parked++
	l.owners[owner] = append(l.owners[owner], c)
	if most.PerOwner <= 0 || len(l.owners[owner]) <= most.PerOwner {
		return nil, nil
	}
	oldest, caps := l.owners[owner][0], l.caps().OrDefault()
	if l.open >= caps.Total || l.by[oldest.from] >= caps.PerAddress {
		return oldest, nil // it stays parked until its Close
	}
	l.unpark(oldest)
	l.count(oldest.from)
	return nil, nil
}
