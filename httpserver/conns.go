package httpserver

import (
	"net"
	"net/netip"

	"github.com/artstore/artstore-pki/internal/connlimit"
)

// Conns are caps on open connections. Zero fields mean the defaults.
type Conns struct {
	// Total is for all addresses. A further connection waits in the queue of the kernel. 0
	// means 1024.
	Total int
	// PerAddress is how many of them one IPv4 address or IPv6 /64 may have. A further one
	// is closed at once. 0 means a quarter of Total, one at least. Behind a balancer that
	// terminates TCP all clients have its address: there it must be Total.
	PerAddress int
}

// perAddress is the cap of one address, with the default in place of 0.
func (c Conns) perAddress() int { return connlimit.Caps(c).OrDefault().PerAddress }

func newListener(ln net.Listener, conns func() Conns, refusals *refusals) net.Listener {
	caps := func() connlimit.Caps { return connlimit.Caps(conns()) }
	return connlimit.Listen(ln, caps, func(from netip.Prefix) { refusals.add(LimitConns, from) })
}
