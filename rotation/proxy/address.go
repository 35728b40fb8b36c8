package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// unixPrefix begins the text of an address that is the path of a Unix socket.
const unixPrefix = "unix:"

// localhost is the one name that may stand for loopback. What it resolves to is checked.
const localhost = "localhost"

// ErrCleartext reports an address in cleartext that is not of this machine, where that was
// not asked for.
var ErrCleartext = errors.New("the address is not one of loopback, and the connection has no TLS")

// Address is a TCP address or the path of a Unix socket. The zero value is none.
type Address struct {
	network string // tcp or unix
	text    string // HOST:PORT, or the absolute path
}

// ParseAddress reads HOST:PORT, or unix:PATH, whose path may be relative to the working
// directory. The port is a number.
func ParseAddress(text string) (Address, error) {
	if path, ok := strings.CutPrefix(text, unixPrefix); ok {
		abs, err := filepath.Abs(path) // a relative path could begin with @, which is a socket without a file
		if err != nil || path == "" {
			return Address{}, fmt.Errorf("the address %q names no socket", text)
		}
		return Address{"unix", abs}, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return Address{}, fmt.Errorf("the address %q: want HOST:PORT or unix:PATH", text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return Address{}, fmt.Errorf("the address %q: the port is no number", text)
	}
	return Address{"tcp", net.JoinHostPort(host, port)}, nil
}

// String is what ParseAddress reads, with an absolute path.
func (a Address) String() string {
	if a.network == "unix" {
		return unixPrefix + a.text
	}
	return a.text
}

// Path returns the path of a Unix socket, or "".
func (a Address) Path() string {
	if a.network != "unix" {
		return ""
	}
	return a.text
}

// host returns the host of a TCP address, or "".
func (a Address) host() string {
	host, _, err := net.SplitHostPort(a.text)
	if a.network != "tcp" || err != nil {
		return ""
	}
	return host
}

// OnThisMachine reports whether only this machine can be at the address: a Unix socket, an
// address of loopback, or the name localhost. Other names are not, because they can be
// resolved to any address.
func (a Address) OnThisMachine() bool {
	ip := net.ParseIP(a.host())
	return a.network == "unix" || a.host() == localhost || ip != nil && ip.IsLoopback()
}

// isOfThisMachine is OnThisMachine for the address of a listener.
func isOfThisMachine(at net.Addr) bool {
	switch at := at.(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return at.IP.IsLoopback()
	}
	return false
}

// backend is the service in cleartext.
type backend struct {
	at     Address
	dialer net.Dialer
}

// newBackend returns the backend at an address. Unless anywhere is set, it refuses addresses
// that are not of this machine, also such that localhost is resolved to.
func newBackend(at Address, within time.Duration, anywhere bool) (*backend, error) {
	b := &backend{at: at, dialer: net.Dialer{Timeout: within}}
	switch {
	case at == Address{}:
		return nil, errors.New("the address of the service is missing")
	case anywhere:
		return b, nil
	case !at.OnThisMachine():
		return nil, fmt.Errorf("%s: %w", at, ErrCleartext)
	}
	b.dialer.Control = func(_, address string, _ syscall.RawConn) error {
		resolved, err := ParseAddress(address)
		if at.network == "tcp" && (err != nil || !resolved.OnThisMachine()) {
			return fmt.Errorf("%s is %s: %w", at, address, ErrCleartext)
		}
		return nil
	}
	return b, nil
}

func (b *backend) dial(ctx context.Context) (net.Conn, error) {
	return b.dialer.DialContext(ctx, b.at.network, b.at.text)
}
