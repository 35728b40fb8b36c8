package challenge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"github.com/artstore/artstore-pki/ca/internal/problem"
)

// errForbidden is an address that the authority does not ask.
type errForbidden struct {
	addr netip.Addr
	why  string
}

func (e *errForbidden) Error() string { return e.addr.String() + " is " + e.why }

// guard decides which addresses are asked. It looks at the address of a
// connection, after the name was resolved: a name proves nothing about where it
// leads, and may lead elsewhere a moment later.
type guard struct {
	networks []netip.Prefix // empty: all but the special ones
}

func (g guard) check(addr netip.Addr) error {
	addr = addr.WithZone("")
	inner := embedded(addr)
	if len(g.networks) > 0 {
		for _, n := range g.networks {
			if n.Contains(addr) || n.Contains(inner) {
				return nil
			}
		}
		return &errForbidden{inner, "in none of the networks of the provisioner (pki.yaml, networks)"}
	}
	if why := special(inner); why != "" {
		return &errForbidden{inner, why}
	}
	return nil
}

// special names what makes an address one of the authority's own machine or link.
// The metadata service of clouds (169.254.169.254) is link-local.
func special(a netip.Addr) string {
	switch {
	case a.IsLoopback():
		return "a loopback address, the authority's own machine"
	case a.IsUnspecified(), a.Is4() && a.As4()[0] == 0: // RFC 1122 §3.2.1.3: "this host on this network"
		return "an unspecified address"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "a multicast or broadcast address"
	}
	return ""
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052 §2.1
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/96") // RFC 8215, with the address at the end
	sixToFour  = netip.MustParsePrefix("2002::/16")      // RFC 3056 §2
	compatible = netip.MustParsePrefix("::/96")          // RFC 4291 §2.5.5.1
)

// embedded is the IPv4 address that an IPv6 address leads to, or the address itself.
func embedded(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if addr.Is4() {
		return addr
	}
	b := addr.As16()
	switch {
	case nat64.Contains(addr), nat64Local.Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:]))
	case sixToFour.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6]))
	case compatible.Contains(addr) && !addr.IsLoopback() && !addr.IsUnspecified():
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return addr
}

// attempt is one validation. It keeps the last address that was tried, which the
// problem then names. net/http dials in the background, and goes on with it when the
// validation has ended.
type attempt struct {
	v    *Validator
	last atomic.Pointer[string]
}

// dial connects to a name at a port.
func (t *attempt) dial(ctx context.Context, network, host, port string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime, Resolver: t.v.resolver, FallbackDelay: -1, // one address after the other: last is then the right one
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			t.last.Store(&address)
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("reading the address %q: %w", address, err)
			}
			return t.v.guard.check(ap.Addr())
		}}
	return d.DialContext(ctx, network, net.JoinHostPort(host, port))
}

// at names what was asked: the name, and the address if it got that far.
func (t *attempt) at(host, port string) string {
	name := net.JoinHostPort(host, port)
	last := t.last.Load()
	if last == nil || *last == name {
		return name
	}
	return name + " (" + *last + ")"
}

// refused is the problem of a connection that did not come about. The text is
// ours: errors of the system are put in words, and nothing else is passed on.
func (t *attempt) refused(what, host, port string, err error) *problem.Document {
	if forbidden, ok := errors.AsType[*errForbidden](err); ok {
		return problem.New(problem.Connection, "%s: %s leads to %s, which is %s; the authority does not connect there", what, host, forbidden.addr, forbidden.why)
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return problem.New(problem.DNS, "%s: looking up %s: %s", what, host, dnsReason(dns))
	}
	return problem.New(problem.Connection, "%s: connecting to %s: %s", what, t.at(host, port), reason(err))
}

func dnsReason(err *net.DNSError) string {
	switch {
	case err.IsNotFound:
		return "the DNS server knows no such record"
	case err.IsTimeout:
		return "the DNS server did not answer in time"
	}
	return "the DNS server answered with an error"
}

// reason puts an error of a connection in words.
func reason(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to the host"
	case errors.Is(err, syscall.ECONNRESET):
		return "the connection was reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection without an answer"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	return "the connection failed"
}
