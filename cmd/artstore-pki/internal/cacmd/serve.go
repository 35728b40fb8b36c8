package cacmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/caserver"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// gcPercent is GOGC of serve, unless the variable is set. The heap of an authority is
// small, so that Go's default of 100 would collect it very often and spend a fifth of all
// CPU time on it. 400 costs some 30 MiB.
const gcPercent = 400

// serveCommand declares serve. Each address can be a flag or a line of pki.yaml; the flag
// counts more, for tests and for containers that share one pki.yaml.
func serveCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the authority",
		Description: `Answers the step-ca HTTP API (the step CLI works unchanged), and ACME if pki.yaml has a
provisioner for it, over TLS 1.3 with a certificate that it issues to itself and renews.
Metrics and readiness have a listener of their own, for loopback. SIGHUP reads pki.yaml, the
password file and the keys again and opens the audit log anew: what is bad is reported and
the old state stays. SIGTERM lets requests in flight finish.`,
		Flags: append(slices.Concat(u.LogFlags(slog.LevelInfo), serving.MetricsFlags("; overrides pki.yaml"), dashboardFlags()),
			flags.Shared(flags.Dir), flags.Shared(flags.PasswordFile), flags.Shared(flags.RootPassword), flags.ListenAt(""), flags.Shared(flags.ReadyFile),
			&cli.StringFlag{Name: "audit-log", Usage: "`FILE` that gets a line of JSON for all that is issued, revoked or refused; overrides pki.yaml"},
			&cli.StringFlag{Name: caserver.CRLListen, Usage: "`HOST:PORT` for GET /crl in cleartext; overrides pki.yaml"},
		),
		Action: u.Action(runServe),
	}
}

// runServe serves an authority until the context of c ends. It opens the authority first,
// which refuses a record that is missing or older than the marker, then it listens, and
// only when all listeners are open does it announce itself: a client that has seen the
// ready file can connect.
//
// It ends what it began in reverse order: the listeners, which let requests in flight
// finish, then the identity, and last the authority with its database. An authority that
// was killed loses nothing that it has answered: each answer follows its commit.
//
// A listener that fails ends the others by the context of the group, so that serve never
// goes on with a part of what it should serve. It then returns that error, status 1.
func runServe(u *ui.UI, c *cli.Context) (err error) {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	pages, err := dashboardOfServe(c)
	if err != nil {
		return err
	}
	if u.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	logger := u.Logger(slog.LevelInfo)
	registry := serving.NewRegistry()
	authority, err := openAuthority(u, c, logger, registry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, authority.Close()) }()

	addr, metrics := c.String(flags.Listen), serving.Metrics{Address: c.String(serving.MetricsName), Registry: registry, Ready: authority.Ready}
	if addr == "" {
		addr = authority.Config().Address
	}
	if metrics.Address == "" {
		metrics.Address = authority.Config().Metrics
	}
	ln, err := serving.Listen(c, flags.Listen, addr)
	if err != nil {
		return err
	}
	server, err := caserver.StartAuthority(c.Context, authority, logger, registry)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer func() { err = errors.Join(err, server.Identity.Close()) }()
	metrics.Identity = server.Identity
	group, ctx, stop := serving.NewGroup(c.Context)
	defer stop()
	group.Go(func() error { return server.Serve(ctx, ln) })
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // before it is announced: a SIGHUP that nothing receives ends the process
	defer signal.Stop(hangup)
	group.Go(func() error { return reloadOn(ctx, u, hangup, authority) })
	if err := metrics.Start(ctx, c, group); err != nil {
		return err
	}
	if err := server.ServeCRL(ctx, c, group); err != nil {
		return err
	}
	if err := pages.beside(ctx, u, c, group, server.Identity); err != nil {
		return err
	}
	if err := serving.Announce(u, c, "authority", serving.URL(ln)); err != nil {
		return err
	}
	group.Go(func() error { return serving.Notify(ctx, logger, authority.Ready) })
	if err := group.Wait(); err != nil {
		return err
	}
	u.Infof("authority: stopped")
	return nil
}

// openAuthority returns the authority in the state directory of the flags; the caller
// closes it. It passes on the file of the password rather than its content, because a
// reload and a rotation read the file again. Its errors carry advice for the operator.
func openAuthority(u *ui.UI, c *cli.Context, logger *slog.Logger, registry prometheus.Registerer) (*ca.Authority, error) {
	dir, opt := c.String(flags.Dir), ca.Options{
		Dir: c.String(flags.Dir), AuditLog: c.String("audit-log"), Logger: logger, Registerer: registry,
		RootPasswordFile: c.String(flags.RootPassword),
	}
	opt.PasswordFile, opt.Password = flags.PasswordSource(u, c)
	authority, err := ca.Open(c.Context, opt)
	if err != nil {
		err = statehints.StateDir(fmt.Errorf("opening the authority in %s: %w", dir, err), dir, statehints.Doctor)
	}
	return authority, err
}

// reloadOn reloads the authority at each signal until ctx ends, and always returns nil. A
// reload that fails leaves the old state in effect, as a whole: it is said on stderr, and
// the authority goes on, because a mistake in pki.yaml must not end a service that works.
func reloadOn(ctx context.Context, u *ui.UI, hangup <-chan os.Signal, authority *ca.Authority) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
		}
		if err := authority.Reload(ctx); err != nil {
			u.Infof("authority: configuration not reloaded, the old one stays: %v", err)
			continue
		}
		u.Infof("authority: configuration reloaded")
	}
}
