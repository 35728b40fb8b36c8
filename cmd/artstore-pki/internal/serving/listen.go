// Package serving has what commands need to serve: listeners at addresses that
// flags name, the announcement that a service answers, its metrics, and what the
// service manager is told.
//
// Invariants:
//
//   - A client that has seen the ready file can connect: the file is written after the
//     listener is open (TestListen; each script of testdata/script relies on it).
//   - A port that is taken stops a service before it announces itself (TestScript/health).
//   - A service that is not ready is alive for the service manager, and one that is stuck is not
//     (TestNotify).
//   - A server ends with its context, and each goroutine belongs to a group that the
//     command waits for (TestMetrics, TestGroupIsJoined).
package serving

import (
	"errors"
	"fmt"
	"net"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/unixsocket"
)

// Loopback is the address of a listener that only this machine reaches, at a free port.
const Loopback = "127.0.0.1:0"

// Listen opens a TCP listener at the address that a flag gave. The error carries the advice to
// choose another address with that flag.
func Listen(c *cli.Context, flag, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(c.Context, "tcp", addr)
	if err != nil {
		return nil, ui.WithHint(fmt.Errorf("listening: %w", err), "choose another address with --%s; port 0 takes a free one", flag)
	}
	return ln, nil
}

// Socket opens a Unix socket whose path a flag gave. It warns if others could put a socket of
// their own in its place. A socket that another process serves is an error with the advice to
// choose another path with that flag.
func Socket(u *ui.UI, c *cli.Context, flag string, s unixsocket.Socket) (net.Listener, error) {
	u.WarnOnce(fileperm.Parents(s.Path), "others can put a socket of their own in place of "+s.Path)
	ln, err := unixsocket.Listen(c.Context, s)
	if errors.Is(err, unixsocket.ErrBusy) {
		err = ui.WithHint(err, "one process serves a socket: stop the other one, or choose another path with --%s", flag)
	}
	return ln, err
}

// Announce says on stderr and in the ready file that a service answers at an address, which is a
// URL or the path of a socket. The caller listens before it calls Announce, so that a client
// that has waited for the file can connect.
func Announce(u *ui.UI, c *cli.Context, what, address string) error {
	u.Infof("%s: serving on %s", what, address)
	if path := c.String(flags.ReadyFile); path != "" {
		if err := durable.WriteFile(path, []byte(address+"\n"), durable.Public); err != nil {
			return fmt.Errorf("writing the ready file: %w", err)
		}
	}
	return nil
}

// URL returns the URL of a listener. For a listener on all addresses the host is localhost, which
// certificates can have as a name, unlike 0.0.0.0.
func URL(ln net.Listener) string {
	host, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return "https://" + ln.Addr().String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "https://" + net.JoinHostPort(host, port)
}
