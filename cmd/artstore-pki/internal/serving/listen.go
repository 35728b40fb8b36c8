// Package serving has what commands need to serve: listeners at addresses that
// flags name, the announcement that a service answers, its metrics, and the
// authority behind its own certificate.
//
// Invariants:
//
//   - Who reads a ready file can connect: it is written after the listener is open.
//   - A port that is taken stops a service before it announces itself.
//   - What serves ends with its context; each goroutine belongs to a group that
//     the command waits for.
package serving

import (
	"fmt"
	"net"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/durable"
)

// Loopback is the address of a listener that only this machine reaches, at a free port.
const Loopback = "127.0.0.1:0"

// Listen opens a TCP listener at the address that a flag gave; a busy port gets
// its hint here.
func Listen(c *cli.Context, flag, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(c.Context, "tcp", addr)
	if err != nil {
		return nil, ui.WithHint(fmt.Errorf("listening: %w", err), "choose another address with --%s; port 0 takes a free one", flag)
	}
	return ln, nil
}

// Announce says that a service answers at an address, a URL or the path of a
// socket, on the terminal and in the ready file. Who waits for the file can
// connect when it is there, so the service listens before.
func Announce(u *ui.UI, c *cli.Context, what, address string) error {
	u.Infof("%s: serving on %s", what, address)
	if path := c.String(flags.ReadyFile); path != "" {
		if err := durable.WriteFile(path, []byte(address+"\n"), durable.Public); err != nil {
			return fmt.Errorf("writing the ready file: %w", err)
		}
	}
	return nil
}

// URL returns the URL of a listener. One that listens on all addresses is
// reached as localhost, a name that certificates can have.
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
