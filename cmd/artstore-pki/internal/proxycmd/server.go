package proxycmd

import (
	"log/slog"
	"net"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/identity"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

// Flags of the server side.
const (
	flagAllow    = "allow"
	flagHeader   = "identity-header"
	flagProxyPro = "proxy-protocol"
)

// serverCommand declares proxy server. --allow has no default: a service that accepts every name
// would hide mistakes in the names of certificates. --listen has none either, because it says
// who can reach the service from now on.
func serverCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "server",
		Usage: "accept mutual TLS for a service without TLS",
		Description: `Accepts TLS 1.3 with client certificates, admits the peers that --allow names, and passes on what
they send to the service at --to, over loopback or a Unix socket. The certificate is renewed while
it runs, and no connection is lost by that. A peer that is revoked is cut at once.

   artstore-pki proxy server --listen :8443 --to 127.0.0.1:8080 --allow ingester --protocol http \
     --ca-url https://ca:9443 --token-file storage.token --state /var/lib/storage-proxy

With --protocol http the service gets X-Client-Identity with the name by which the peer was
admitted, and Client-Cert (RFC 9440) with its certificate; what peers send under such names is
removed. With h2c the service is spoken to in HTTP/2, as gRPC wants it. With tcp nothing is
changed, and --proxy-protocol puts a PROXY header (version 2) in front. The service must listen
where only the proxy reaches it. docs/proxy.md has more.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: flags.Listen, Required: true, Usage: "`HOST:PORT` to accept mutual TLS at; port 0 chooses a free one"},
			&cli.StringFlag{Name: flagTo, Required: true, Usage: "`ADDRESS` of the service: HOST:PORT of loopback, or unix:PATH"},
			&cli.StringSliceFlag{Name: flagAllow, Required: true, Usage: "`NAME` in a client certificate that may connect, a DNS name or a SPIFFE ID; repeat for more"},
			&cli.StringFlag{Name: flagProtocol, Value: "tcp", Usage: "`PROTOCOL` of the service: tcp, http or h2c"},
			&cli.StringFlag{Name: flagHeader, Value: proxy.DefaultIdentityHeader, Usage: "`HEADER` of HTTP with the name of the peer"},
			&cli.BoolFlag{Name: flagProxyPro, Usage: "send a PROXY header, version 2, in front of each connection of tcp"},
			&cli.BoolFlag{Name: flagCleartext, Usage: "let the service be on another machine, without TLS on the way to it"},
			&cli.IntFlag{Name: flagPerAddress, Category: "limits", DefaultText: "a quarter", Usage: "`NUMBER` of connections of one address; further ones are closed"},
		}, sharedFlags(u)...),
		CustomHelpTemplate: help.Head + statuses,
		Action:             u.Action(runServer),
	}
}

// runServer serves mutual TLS until its context ends. It checks the command line first, and gets
// its certificate before it listens. It is not ready while the service does not accept
// connections, so that a balancer goes elsewhere; it serves all the same.
func runServer(u *ui.UI, c *cli.Context) (err error) {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	cfg := proxy.ServerConfig{
		Allow: c.StringSlice(flagAllow), AllowCleartext: c.Bool(flagCleartext),
		ProxyHeader: c.Bool(flagProxyPro), IdentityHeader: c.String(flagHeader), Limits: limits(c), Logger: u.Logger(slog.LevelInfo),
	}
	if cfg.To, err = addressOf(c, flagTo); err != nil {
		return err
	}
	if cfg.Protocol, err = protocolOf(c, "tcp", "http", "h2c"); err != nil {
		return err
	}
	if err := cleartext(c, flagTo, cfg.To); err != nil {
		return err
	}
	if err := cfg.Check(); err != nil {
		return ui.UsageErrorf("%w", err)
	}
	if path := cfg.To.Path(); path != "" { // who takes its place gets the tokens of all requests
		u.WarnOnce(fileperm.Parents(path), "others can put a socket of their own in place of "+path)
	}
	if cfg.Identity, err = identity.OfFlags(u, c, cfg.Logger); err != nil {
		return err
	}
	defer closing(&err, cfg.Identity.Close)
	s, err := proxy.NewServer(cfg)
	if err != nil {
		return err
	}
	return running{name: "proxy server", id: cfg.Identity, side: s, listen: func() (net.Listener, string, error) {
		ln, err := serving.Listen(c, flags.Listen, c.String(flags.Listen))
		if err != nil {
			return nil, "", err
		}
		return ln, ln.Addr().String(), nil
	}}.serve(u, c)
}
