package cacmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/ca/dashboard"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/identity"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/unixsocket"
	"github.com/artstore/artstore-pki/rotation"
)

// Flags of what serves the dashboard. The command dashboard has --listen in place of the first.
const (
	flagDashboard = "dashboard"
	flagReader    = "dashboard-reader"
	flagReaderOwn = "reader"
)

const (
	// dashboardListen is where the command dashboard listens by default.
	dashboardListen = "127.0.0.1:9480"
	// unixPrefix begins the address of a Unix socket.
	unixPrefix = "unix:"
)

// Limits of the listener of the dashboard. Readers are people: they are few, and send no bodies.
const (
	dashboardRequest = 10 * time.Second
	dashboardAnswer  = 30 * time.Second
	dashboardConns   = 128
	dashboardStreams = 16
)

// dashboardFlags are those of serve.
func dashboardFlags() []cli.Flag {
	const category = "dashboard"
	return []cli.Flag{
		&cli.StringFlag{Name: flagDashboard, Category: category, Usage: "`ADDRESS` for the pages about the record: HOST:PORT of loopback in cleartext, unix:PATH for this user, or with --" + flagReader + " any HOST:PORT over mutual TLS"},
		&cli.StringSliceFlag{Name: flagReader, Category: category, Usage: "`NAME` in a client certificate that may read the dashboard; repeat for more"},
	}
}

// dashboardCommand declares dashboard: the same pages by a process of their own, which has no key of the
// authority and goes on when the authority does not.
func dashboardCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "dashboard",
		Usage: "pages about the record for a browser",
		Description: `Shows what ends next and who renews it, who holds what, what was issued and refused, how far a
change of roots is, and whether the log is in order. It only reads, needs no password, and works
beside a running authority or without one. On loopback it answers in cleartext; a Unix socket is
for its owner; anywhere else it wants --reader and a certificate of its own, and answers over
mutual TLS 1.3 only to readers.

   artstore-pki dashboard --dir /var/lib/artstore-pki
   artstore-pki dashboard --listen :9480 --reader operator --cert tls.crt --key tls.key --ca-cert ca.crt

The authority serves the same with serve --dashboard. docs/dashboard.md explains the pages.`,
		Flags: slices.Concat(u.LogFlags(slog.LevelInfo), []cli.Flag{
			flags.Shared(flags.Dir),
			&cli.StringFlag{Name: flags.Listen, Value: dashboardListen, Usage: "`ADDRESS` to listen on: HOST:PORT, or unix:PATH; port 0 chooses a free one"},
			&cli.StringSliceFlag{Name: flagReaderOwn, Usage: "`NAME` in a client certificate that may read; repeat for more"},
			flags.Shared(flags.ReadyFile),
		}, identity.Flags()),
		Action: u.Action(runDashboard),
	}
}

// dashboardAt says where the dashboard listens, and who may read it.
type dashboardAt struct {
	flag, address string // the flag that gave the address, for advice
	readers       []string
	reader        string // the flag of the readers
}

// dashboardOfServe returns what the flags of serve say, after it was checked.
func dashboardOfServe(c *cli.Context) (dashboardAt, error) {
	at := dashboardAt{flagDashboard, c.String(flagDashboard), c.StringSlice(flagReader), flagReader}
	switch {
	case at.address != "":
		return at, at.check()
	case len(at.readers) > 0:
		return at, ui.UsageErrorf("--%s wants --%s", flagReader, flagDashboard)
	}
	return at, nil
}

// beside serves the dashboard in the group of an authority, with its certificate, if there is an address.
func (a dashboardAt) beside(ctx context.Context, u *ui.UI, c *cli.Context, group *errgroup.Group, id *rotation.Identity) error {
	if a.address == "" {
		return nil
	}
	name, err := a.start(ctx, u, c, group, func() (*rotation.Identity, error) { return id, nil })
	if err == nil {
		u.Infof("dashboard: serving on %s", name)
	}
	return err
}

// unix returns the path of a Unix socket, "" if the address is another one.
func (a dashboardAt) unix() string {
	path, ok := strings.CutPrefix(a.address, unixPrefix)
	if !ok {
		return ""
	}
	return path
}

// check refuses an address at which strangers could read, and readers where nobody is asked who he is.
func (a dashboardAt) check() error {
	if a.unix() != "" {
		if len(a.readers) > 0 {
			return ui.UsageErrorf("--%s: at a Unix socket the file system decides who reads; leave it out", a.reader)
		}
		return nil
	}
	host, _, err := net.SplitHostPort(a.address)
	if err != nil {
		return ui.UsageErrorf("--%s %q: want HOST:PORT or unix:PATH", a.flag, printable.Clean(a.address))
	}
	ip, err := netip.ParseAddr(host)
	local := host == "localhost" || err == nil && ip.IsLoopback()
	if !local && len(a.readers) == 0 {
		return ui.WithHint(ui.UsageErrorf("--%s %s: others can reach this address, and nobody would be asked who he is", a.flag, printable.Clean(a.address)),
			"name who may read with --%s, or use an address of loopback or unix:PATH", a.reader)
	}
	return nil
}

// listen opens the listener, and returns how it is named to people.
func (a dashboardAt) listen(u *ui.UI, c *cli.Context) (ln net.Listener, name string, err error) {
	if path := a.unix(); path != "" {
		ln, err = serving.Socket(u, c, a.flag, unixsocket.Socket{Path: path})
		return ln, a.address, err
	}
	if ln, err = serving.Listen(c, a.flag, a.address); err != nil {
		return nil, "", err
	}
	name = serving.URL(ln)
	if len(a.readers) == 0 {
		name = "http" + strings.TrimPrefix(name, "https")
	}
	return ln, name, nil
}

// start opens the record for reading, listens, and serves in group. id is the identity for mutual TLS,
// and is asked for only if there are readers. It returns the address for people.
func (a dashboardAt) start(ctx context.Context, u *ui.UI, c *cli.Context, group *errgroup.Group, id func() (*rotation.Identity, error)) (name string, err error) {
	logger, dir := u.Logger(slog.LevelInfo), c.String(flags.Dir)
	var server *rotation.Server
	if len(a.readers) > 0 {
		own, err := id()
		if err != nil {
			return "", err
		}
		if server, err = own.Server(rotation.ServerOptions{Authorize: rotation.AllowNames(a.readers...)}); err != nil {
			return "", err
		}
	}
	d, err := dashboard.Open(ctx, dashboard.Options{Dir: dir, AnyHost: server != nil || a.unix() != "", Program: c.App.Name + " " + c.App.Version, Logger: logger})
	switch {
	case errors.Is(err, dashboard.ErrSchema):
		return "", ui.WithHint(err, "serve of this version updates the record; beside an older authority, use the dashboard of its version")
	case err != nil:
		return "", statehints.StateDir(fmt.Errorf("opening the record in %s: %w", dir, err), dir, statehints.Doctor)
	}
	ln, name, err := a.listen(u, c)
	if err != nil {
		return "", errors.Join(err, d.Close())
	}
	cfg := httpserver.Config{
		Handler: d.Handler(), Logger: logger, BodyTimeout: dashboardRequest, WriteTimeout: dashboardAnswer, Streams: dashboardStreams,
		Conns: func() httpserver.Conns { return httpserver.Conns{Total: dashboardConns} },
	}
	if server != nil { // a nil pointer in the interface would count as a server
		cfg.Server = server
	}
	group.Go(func() error { return errors.Join(httpserver.Serve(ctx, ln, cfg), d.Close()) })
	return name, nil
}

// runDashboard serves the pages until the context of c ends. Everything that can be wrong with the command
// line is found before a certificate is asked for.
func runDashboard(u *ui.UI, c *cli.Context) (err error) {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	at := dashboardAt{flags.Listen, c.String(flags.Listen), c.StringSlice(flagReaderOwn), flagReaderOwn}
	if err := at.check(); err != nil {
		return err
	}
	var id *rotation.Identity
	defer func() {
		if id != nil {
			err = errors.Join(err, id.Close())
		}
	}()
	group, ctx, stop := serving.NewGroup(c.Context)
	defer stop()
	name, err := at.start(ctx, u, c, group, func() (*rotation.Identity, error) {
		id, err = identity.OfFlags(u, c, u.Logger(slog.LevelInfo))
		return id, err
	})
	if err != nil {
		return err
	}
	if err := serving.Announce(u, c, "dashboard", name); err != nil {
		return err
	}
	if err := group.Wait(); err != nil {
		return err
	}
	u.Infof("dashboard: stopped")
	return nil
}
