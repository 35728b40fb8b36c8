package httpsrv

import (
	"net"
	"net/netip"

	"github.com/artstore/artstore-pki/internal/connlimit"
)

// Conns are caps on open connections. Zero fields mean the defaults.
type Conns = connlimit.Caps

// newListener keeps the caps.
func newListener(ln net.Listener, conns func() Conns, refusals *refusals) net.Listener {
	return connlimit.Listen(ln, conns, func(from netip.Prefix) { refusals.add(LimitConns, from) })
}
