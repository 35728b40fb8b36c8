package proxycmd

import (
	"log/slog"
	"net"
	"os/user"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/identity"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/unixsocket"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

// Flags of the client side. There is none for the protocol of the server: it chooses between
// HTTP/1.1 and HTTP/2 in the handshake.
const (
	flagServerName  = "server-name"
	flagAllowServer = "allow-server"
	flagUser        = "allow-user"
)

// clientCommand declares proxy client. Its --ready-file gets an address and no URL, because a
// program may speak anything over it.
func clientCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "client",
		Usage: "connect over mutual TLS for a program without TLS",
		Description: `Accepts what a program of this machine sends without TLS, on loopback or on a Unix socket, and
passes it on to --to over TLS 1.3 with a client certificate. The certificate of the server must
have its host as a name, or --server-name. The certificate is renewed while it runs: requests
that begin after that use the new one, and older connections go on as long as the old one is valid,
a day at most.

   artstore-pki proxy client --listen unix:/run/app/storage.sock --to storage:8443 \
     --cert tls.crt --key tls.key --ca-cert ca.crt

Whoever reaches --listen acts with the certificate: a socket is made with mode 0600, and
--allow-user names users that may use it beside what its mode says. With --protocol http, HTTP/1.1, HTTP/2
without TLS and WebSocket are taken, and pages in browsers are refused. docs/proxy.md has more.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: flags.Listen, Required: true, Usage: "`ADDRESS` for programs: HOST:PORT of loopback, or unix:PATH"},
			&cli.StringFlag{Name: flagTo, Required: true, Usage: "`HOST:PORT` of the server"},
			&cli.StringFlag{Name: flagServerName, Usage: "`NAME` that the certificate of the server must have; default: the host of --" + flagTo},
			&cli.StringSliceFlag{Name: flagAllowServer, Usage: "`NAME` of which the certificate of the server must have one as well, such as a SPIFFE ID; repeat for more"},
			&cli.StringFlag{Name: flagProtocol, Value: "tcp", Usage: "`PROTOCOL`: tcp or http"},
			values.GroupFlag(),
			&cli.StringSliceFlag{Name: flagUser, Usage: "`USER`, by name or number, who may use the socket if its mode admits them; repeat for more (default: all whom the mode admits)"},
			&cli.BoolFlag{Name: flagCleartext, Usage: "let other machines connect, without TLS and without a check who they are"},
		}, sharedFlags(u)...),
		CustomHelpTemplate: help.Head + statuses,
		Action:             u.Action(runClient),
	}
}

// runClient serves programs of this machine until its context ends. It checks the command line
// first, and gets its certificate before it listens: a start that fails leaves the socket of a
// running process alone. It is ready while its certificate is valid.
func runClient(u *ui.UI, c *cli.Context) (err error) {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	cfg := proxy.ClientConfig{
		ServerName: c.String(flagServerName), AllowServer: c.StringSlice(flagAllowServer),
		AllowCleartext: c.Bool(flagCleartext), Limits: limits(c), Logger: u.Logger(slog.LevelInfo),
	}
	if cfg.To, err = addressOf(c, flagTo); err != nil {
		return err
	}
	if cfg.Protocol, err = protocolOf(c, "tcp", "http"); err != nil {
		return err
	}
	at, err := frontOf(c, &cfg)
	if err != nil {
		return err
	}
	if err := cfg.Check(); err != nil {
		return ui.UsageErrorf("%w", err)
	}
	if cfg.Identity, err = identity.OfFlags(u, c, cfg.Logger); err != nil {
		return err
	}
	defer closing(&err, cfg.Identity.Close)
	client, err := proxy.NewClient(cfg)
	if err != nil {
		return err
	}
	defer closing(&err, client.Close)
	return running{name: "proxy client", id: cfg.Identity, side: client, listen: func() (net.Listener, string, error) { return at.open(u, c) }}.serve(u, c)
}

// front is where a client listens.
type front struct {
	proxy.Address
	group int
}

// frontOf reads the flags of the listener, and adds the users to the configuration. Users and
// groups are told apart on a Unix socket only, so they are an error with an address of TCP.
func frontOf(c *cli.Context, cfg *proxy.ClientConfig) (f front, err error) {
	if f.Address, err = addressOf(c, flags.Listen); err != nil {
		return f, err
	}
	if err := cleartext(c, flags.Listen, f.Address); err != nil {
		return f, err
	}
	f.group = values.GroupOf(c)
	for _, name := range c.StringSlice(flagUser) {
		uid, err := userID(name)
		if err != nil {
			return f, err
		}
		cfg.UIDs = append(cfg.UIDs, uid)
	}
	if f.Path() == "" && (f.group != 0 || len(cfg.UIDs) > 0) {
		return f, ui.UsageErrorf("--group and --%s go with --%s unix:PATH", flagUser, flags.Listen)
	}
	return f, nil
}

// open listens. The address that it returns is the path of a socket, or HOST:PORT.
func (f front) open(u *ui.UI, c *cli.Context) (net.Listener, string, error) {
	path := f.Path()
	if path == "" {
		ln, err := serving.Listen(c, flags.Listen, f.String())
		if err != nil {
			return nil, "", err
		}
		return ln, ln.Addr().String(), nil
	}
	ln, err := serving.Socket(u, c, flags.Listen, unixsocket.Socket{Path: path, Group: f.group})
	return ln, path, err
}

// userID returns the number of a user, who may be named by it.
func userID(name string) (int, error) {
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	found, err := user.Lookup(name)
	if err != nil {
		return 0, ui.UsageErrorf("--%s %q: there is no such user", flagUser, printable.Clean(name))
	}
	return strconv.Atoi(found.Uid)
}
