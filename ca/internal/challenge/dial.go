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

// errForbidden is an address to which the authority does not connect.
type errForbidden struct {
	addr netip.Addr
	why  string
}

func (e *errForbidden) Error() string { return e.addr.String() + " is " + e.why }

// guard decides to which addresses the authority connects. It checks the address of each
// connection after the name was resolved. A check of the name before would not be enough:
// the next lookup may return another address.
type guard struct {
	networks []netip.Prefix // empty means all addresses but the special ones
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

// special returns why an address is one of the authority's own machine or link, or "". The
// metadata service of clouds (169.254.169.254) is link-local.
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

// embedded returns the IPv4 address to which packets for an IPv6 address are translated, or the
// address itself. Without it, such an IPv6 address would pass for a special IPv4 address.
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

// attempt is one validation. It keeps the last address that was tried, for the text of a
// problem. The field is atomic because net/http dials in another goroutine, which may go on
// after the validation has ended.
type attempt struct {
	v    *Validator
	last atomic.Pointer[string]
}

// dial connects to a name at a port.
func (t *attempt) dial(ctx context.Context, network, host, port string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime, Resolver: t.v.resolver, FallbackDelay: -1, // tries one address after the other, so that last is the one that failed
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

// at returns host and port for a problem, with the address if one was tried.
func (t *attempt) at(host, port string) string {
	name := net.JoinHostPort(host, port)
	last := t.last.Load()
	if last == nil || *last == name {
		return name
	}
	return name + " (" + *last + ")"
}

// refused returns the problem for a connection that failed. It contains no text of an error,
// which may quote the server.
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

// reason returns our text for an error of a connection.
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
