package main

import (
	"fmt"
	"net"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/durable"
)

// loopback is the address of a listener that only this machine reaches, at a free port.
const loopback = "127.0.0.1:0"

// listen opens a TCP listener at the address that a flag gave; a busy port gets
// its hint here.
func listen(c *cli.Context, flag, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(c.Context, "tcp", addr)
	if err != nil {
		return nil, ui.WithHint(fmt.Errorf("listening: %w", err), "choose another address with --%s; port 0 takes a free one", flag)
	}
	return ln, nil
}

// announce says that a service answers at an address, a URL or the path of a
// socket, on the terminal and in the ready file. Who waits for the file can
// connect when it is there, so the service listens before.
func announce(u *ui.UI, c *cli.Context, what, address string) error {
	u.Infof("%s: serving on %s", what, address)
	if path := c.String(flags.ReadyFile); path != "" {
		if err := durable.WriteFile(path, []byte(address+"\n"), durable.Public); err != nil {
			return fmt.Errorf("writing the ready file: %w", err)
		}
	}
	return nil
}

// serviceURL is the URL of a listener. One that listens on all addresses is
// reached as localhost, a name that certificates can have.
func serviceURL(ln net.Listener) string {
	host, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return "https://" + ln.Addr().String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "https://" + net.JoinHostPort(host, port)
}
