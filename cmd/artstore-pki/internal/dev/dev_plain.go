package dev

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/connlimit"
	"github.com/artstore/artstore-pki/internal/devstack"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/unixsocket"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

// Flags of dev storage that more than one function reads.
const (
	flagPlain     = "plain-http"
	flagKeySet    = "jwks-url"
	flagKeySocket = "jwks-socket"
)

// runPlainStorage serves the reference Storage Element without TLS until its context ends. It has
// no certificate: `proxy server` stands in front of it, and `proxy client` between it and the
// Admin Module. Who reaches the listener can say to be anybody, so it is a Unix socket or an
// address of loopback, and there is no flag for others.
func runPlainStorage(u *ui.UI, c *cli.Context) error {
	at, err := checkPlain(u, c)
	if err != nil {
		return err
	}
	storage, err := newStorage(u, c, socketTransport(c.String(flagKeySocket)))
	if err != nil {
		return err
	}
	ln, address, err := listenPlain(u, c, at)
	if err != nil {
		return err
	}
	metrics := serving.ClientMetrics(c, "", nil)
	metrics.Ready = storage.Ready
	return devServer{
		what: "Storage Element without TLS", address: address, listener: ln, service: storage, metrics: metrics,
		http: httpserver.Config{
			Handler: devstack.BehindProxy(storage.Handler(), c.StringSlice("allow")...), Logger: u.Logger(slog.LevelInfo),
			Conns: func() httpserver.Conns { return httpserver.Conns{PerAddress: connlimit.DefaultTotal} }, // all come from one proxy
		},
	}.serve(u, c)
}

// checkPlain returns the address to listen at, or what is wrong with the command line.
// A variable of the environment for certificates is there for all commands, and no mistake.
func checkPlain(u *ui.UI, c *cli.Context) (proxy.Address, error) {
	for name, variable := range map[string]string{"cert": "TLS__CERT_FILE", flags.CAURL: flags.EnvCAURL, flags.TokenFile: "", "state": ""} {
		if given := c.String(name); given != "" && (variable == "" || given != u.Getenv(variable)) {
			return proxy.Address{}, ui.UsageErrorf("--%s does not go with --%s, which has no certificate", name, flagPlain)
		}
	}
	if c.String(flagKeySocket) == "" {
		return proxy.Address{}, ui.UsageErrorf("--%s needs --%s", flagPlain, flagKeySocket)
	}
	if to, err := url.Parse(c.String(flagKeySet)); err != nil || to.Scheme != "http" || to.Host == "" || to.User != nil {
		return proxy.Address{}, ui.UsageErrorf("--%s: want http://HOST/PATH with --%s", flagKeySet, flagKeySocket)
	}
	at, err := proxy.ParseAddress(c.String(flags.Listen))
	if err != nil {
		return at, ui.UsageErrorf("--%s: %s", flags.Listen, printable.Clean(err.Error()))
	}
	if !at.OnThisMachine() {
		return at, ui.UsageErrorf("--%s %s: with --%s want unix:PATH or an address of loopback, because whoever reaches it can say to be anybody", flags.Listen, printable.Clean(at.String()), flagPlain)
	}
	return at, nil
}

// listenPlain opens the listener, and returns its address as --to of `proxy server` takes it.
func listenPlain(u *ui.UI, c *cli.Context, at proxy.Address) (net.Listener, string, error) {
	if at.Path() != "" {
		ln, err := serving.Socket(u, c, flags.Listen, unixsocket.Socket{Path: at.Path()})
		return ln, at.String(), err
	}
	ln, err := serving.Listen(c, flags.Listen, at.String())
	if err != nil {
		return nil, "", err
	}
	return ln, ln.Addr().String(), nil
}

// socketTransport sends requests for any host over one Unix socket.
func socketTransport(path string) http.RoundTripper {
	return &http.Transport{
		DisableKeepAlives: true, // a request every few seconds
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}
}
