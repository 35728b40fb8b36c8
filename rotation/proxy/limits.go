package proxy

import (
	"cmp"
	"errors"
	"time"

	"github.com/artstore/artstore-pki/internal/connlimit"
)

// Protocol is what is spoken between the two sides.
type Protocol int

// The protocols.
const (
	// TCP passes bytes on and knows nothing of them.
	TCP Protocol = iota
	// HTTP is HTTP/1.1 to the service, whatever its peers speak. WebSocket is passed on.
	HTTP
	// H2C is HTTP/2 in cleartext (RFC 9113 §3.3) to the service, as gRPC needs it.
	// WebSocket goes over HTTP/1.1.
	H2C
)

// Defaults of Limits.
const (
	defaultIdleTCP = time.Hour
	defaultConnect = 10 * time.Second
	defaultStop    = 30 * time.Second
)

// Limits bound what peers can make a proxy hold. Zero fields mean the defaults; negative ones
// are errors.
type Limits struct {
	// MaxConns is how many connections may be open at a time, handshakes included. A further
	// one waits in the queue of the kernel. 0 means 1024.
	MaxConns int
	// MaxConnsPerAddress is how many of them one IPv4 address or IPv6 /64 may have. A further
	// one is closed at once. In HTTP it is also how many requests it may have open; a further
	// one is answered with 503. 0 means a quarter of MaxConns. It does not bind a [Client],
	// whose programs are all on one machine.
	MaxConnsPerAddress int
	// Idle is how long a connection of TCP or WebSocket may be open without a byte in either
	// direction. 0 means 1 h. Connections of HTTP without a request end after 2 min.
	Idle time.Duration
	// Connect bounds the time to connect to the service, and to send the PROXY header.
	// 0 means 10 s.
	Connect time.Duration
	// Stop is how long requests and connections may go on after the end of the context
	// of Serve. Then they are cut. 0 means 30 s.
	Stop time.Duration
}

// orDefault has the defaults in place of zero fields.
func (l Limits) orDefault() (Limits, error) {
	if l.MaxConns < 0 || l.MaxConnsPerAddress < 0 || l.Idle < 0 || l.Connect < 0 || l.Stop < 0 {
		return l, errors.New("a limit is negative")
	}
	l.MaxConns = cmp.Or(l.MaxConns, connlimit.DefaultTotal)
	l.Idle = cmp.Or(l.Idle, defaultIdleTCP)
	l.Connect = cmp.Or(l.Connect, defaultConnect)
	l.Stop = cmp.Or(l.Stop, defaultStop)
	return l, nil
}
