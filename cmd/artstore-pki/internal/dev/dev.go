// Package dev has the commands for developers and for a first look: the demo, the reference
// services, and certificates and authorities for tests. They need the packages of the authority.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/identity"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/devstack"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/rotation"
)

// Command declares dev with its five commands. What is below it is for development and
// tests: reference services and certificates that need no operator.
func Command(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "dev",
		Usage: "certificates and reference services for development: not for production",
		Subcommands: []*cli.Command{
			devCertsCommand(u), devBootstrapCommand(u), devAdminCommand(u), devStorageCommand(u), devIngesterCommand(u),
		},
	}
}

// devAdminCommand declares dev admin. The secret of its account goes to a file and not to
// stdout, so that a service beside it can read it after a restart.
func devAdminCommand(u *ui.UI) *cli.Command {
	flags := append(devFlags(u, "127.0.0.1:8000"),
		values.DurationFlag("token-lifetime", 5*time.Minute, "lifetime of access tokens"),
		values.DurationFlag("key-rotation", 24*time.Hour, "how often the signing key is replaced; old and new overlap in the JWKS"),
		&cli.BoolFlag{Name: "bound-tokens", Usage: "bind tokens to the client certificate (RFC 8705)"},
		&cli.StringFlag{Name: "account", Usage: "make a service account of this `NAME`, or keep it if its secret file is there"},
		&cli.StringFlag{Name: "account-id-file", Usage: "`FILE` for the client id of --account; the id is printed too"},
		&cli.StringFlag{Name: "account-secret-file", Usage: "`FILE` for the secret of --account; never replaced"},
	)
	return &cli.Command{
		Name:  "admin",
		Usage: "run a reference Admin Module",
		Description: `Issues OAuth 2.0 access tokens to service accounts over mutual TLS, in ArtStore's JSON
dialect (/api/v1/auth/token) and in Keycloak's (/realms/artstore/protocol/openid-connect/token).`,
		Flags:  append(flags, identity.Flags()...),
		Action: u.Action(runDevAdmin),
	}
}

// devStorageCommand declares dev storage. --dialect chooses between the answers of ArtStore's
// two Storage Elements, which differ in ids and errors.
func devStorageCommand(u *ui.UI) *cli.Command {
	flags := append(devFlags(u, "127.0.0.1:8010"),
		&cli.StringFlag{Name: flagKeySet, Required: true, Usage: "`URL` of the Admin Module's key set"},
		&cli.StringFlag{Name: "mode", Value: "rw", Usage: "edit, rw, ro or ar"},
		&cli.StringFlag{Name: "dialect", Value: "python", Usage: "answers as ArtStore's storage element in python or in go"},
		&cli.Int64Flag{Name: "max-file-size", Value: 1 << 30, Usage: "largest file in `BYTES`; above it: 413"},
		&cli.Int64Flag{Name: "capacity", Value: 16 << 30, Usage: "room for files in `BYTES`; above it: 507"},
		&cli.BoolFlag{Name: "require-bound", Usage: "refuse tokens that are not bound to the client certificate (RFC 8705)"},
		&cli.BoolFlag{Name: flagPlain, Usage: "serve without TLS, behind a proxy that names the caller"},
		&cli.StringFlag{Name: flagKeySocket, Usage: "with --plain-http, Unix socket `FILE` of a proxy client whose server is the Admin Module"},
	)
	return &cli.Command{
		Name:  "storage",
		Usage: "run a reference Storage Element",
		Description: `Takes files over mutual TLS from the peers named by --allow that bring a valid access token,
keeps them on disk with their SHA-256, and gives them back.

With --plain-http it stands for a service that knows no TLS. --listen is then unix:PATH or an
address of loopback, behind "proxy server --protocol http"; --allow is compared with the name that
the proxy gives, and bound tokens with the certificate that it shows. The key set comes
over --jwks-socket, from an http:// URL. On loopback each user of this machine can say such
things, so a Unix socket is better. It takes no certificate.`,
		Flags:  append(flags, identity.Flags()...),
		Action: u.Action(runDevStorage),
	}
}

// devFlags returns the flags of both reference services; listenAt is the address without
// --listen. --allow has no default: a service that accepts every name would hide mistakes in
// the names of certificates. --clock-offset is a duration flag of the library, because a clock
// can be behind, and the package values has no negative lengths of time.
func devFlags(u *ui.UI, listenAt string) []cli.Flag {
	return append(append(u.LogFlags(slog.LevelInfo), serving.MetricsFlags("")...),
		&cli.StringFlag{Name: flags.Dir, Aliases: []string{"d"}, Required: true, Usage: "directory `DIR` for what the service keeps"},
		&cli.StringSliceFlag{Name: "allow", Required: true, Usage: "`NAME` in a client certificate that may connect; repeat for more"},
		&cli.DurationFlag{Name: "clock-offset", DefaultText: "0s", Usage: "how far the service's clock is ahead, a `TIME` such as 2m or -2m: to see what a wrong clock does to tokens"},
		flags.ListenAt(listenAt), flags.Shared(flags.ReadyFile),
	)
}

// runDevAdmin serves the reference Admin Module, which internal/devstack has, until its context
// ends. It makes the account of --account before it listens, so that a client that waits for
// the ready file can use it at once. Accounts are kept in --dir over a restart.
func runDevAdmin(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	if (c.String("account") == "") != (c.String("account-secret-file") == "") {
		return ui.UsageErrorf("--account and --account-secret-file go together")
	}
	admin, err := devstack.NewAdmin(devstack.AdminConfig{
		Dir: c.String(flags.Dir), TokenLifetime: values.DurationOf(c, "token-lifetime"),
		SigningKeyRotation: values.DurationOf(c, "key-rotation"), BoundTokens: c.Bool("bound-tokens"), ClockOffset: c.Duration("clock-offset"), Logger: u.Logger(slog.LevelInfo),
	})
	if err != nil {
		return fmt.Errorf("starting the Admin Module: %w", err)
	}
	if err := ensureAccount(u, c, admin); err != nil {
		return err
	}
	return overTLS(u, c, "Admin Module", func(*rotation.Identity) (devService, error) { return admin, nil })
}

// runDevStorage serves the reference Storage Element until its context ends. It gets the keys
// that verify access tokens from --jwks-url over its own identity, so the Admin Module must
// accept its name. Files are kept in --dir over a restart.
func runDevStorage(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	if c.Bool(flagPlain) {
		return runPlainStorage(u, c)
	}
	if c.String(flagKeySocket) != "" {
		return ui.UsageErrorf("--%s goes with --%s", flagKeySocket, flagPlain)
	}
	if err := flags.HTTPSURL(flagKeySet, c.String(flagKeySet)); err != nil {
		return err
	}
	return overTLS(u, c, "Storage Element", func(id *rotation.Identity) (devService, error) {
		jwks, err := id.Transport(rotation.TransportOptions{})
		if err != nil {
			return nil, fmt.Errorf("starting the Storage Element: %w", err)
		}
		return newStorage(u, c, jwks)
	})
}

// newStorage makes the Storage Element of the flags. It gets the key set over jwks.
func newStorage(u *ui.UI, c *cli.Context, jwks http.RoundTripper) (*devstack.Storage, error) {
	storage, err := devstack.NewStorage(devstack.StorageConfig{
		Dir: c.String(flags.Dir), Mode: devstack.Mode(c.String("mode")), Dialect: devstack.Dialect(c.String("dialect")),
		MaxFileSize: c.Int64("max-file-size"), Capacity: c.Int64("capacity"),
		JWKSURL: c.String(flagKeySet), JWKSTransport: jwks,
		RequireBound: c.Bool("require-bound"), ClockOffset: c.Duration("clock-offset"), Logger: u.Logger(slog.LevelInfo),
	})
	if err != nil {
		return nil, fmt.Errorf("starting the Storage Element: %w", err)
	}
	return storage, nil
}

// devService is a reference service. Run does its work in the background, such as replacing
// keys, until ctx ends.
type devService interface {
	Handler() http.Handler
	Run(ctx context.Context) error
}

// overTLS opens the rotating identity of the flags and serves over it until the context of c
// ends. what is the name of the service in the lines for people; open makes it, and gets the
// identity. Only peers whose certificate has a name of --allow are let in.
func overTLS(u *ui.UI, c *cli.Context, what string, open func(*rotation.Identity) (devService, error)) (err error) {
	logger := u.Logger(slog.LevelInfo)
	id, err := identity.OfFlags(u, c, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, id.Close()) }()
	service, err := open(id)
	if err != nil {
		return err
	}
	server, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames(c.StringSlice("allow")...)})
	if err != nil {
		return err
	}
	ln, err := serving.Listen(c, flags.Listen, c.String(flags.Listen))
	if err != nil {
		return err
	}
	return devServer{
		what: what, address: serving.URL(ln), listener: ln, service: service,
		http:    httpserver.Config{Handler: service.Handler(), Server: server, Logger: logger},
		metrics: serving.IdentityMetrics(c, id, func(context.Context) error { return id.Check() }),
	}.serve(u, c)
}

// devServer says how to serve a reference service. address is where, for people and for the
// ready file.
type devServer struct {
	what, address string
	listener      net.Listener
	service       devService
	http          httpserver.Config
	metrics       serving.Metrics
}

// serve serves until the context of c ends, and closes the listener. It announces the service
// when both listeners are open. The first part that fails ends the others.
func (d devServer) serve(u *ui.UI, c *cli.Context) error {
	group, ctx, stop := serving.NewGroup(c.Context)
	defer stop()
	if err := d.metrics.Start(ctx, c, group); err != nil {
		return errors.Join(err, d.listener.Close())
	}
	group.Go(func() error { return d.service.Run(ctx) })
	group.Go(func() error { return httpserver.Serve(ctx, d.listener, d.http) })
	if err := serving.Announce(u, c, d.what, d.address); err != nil {
		return err
	}
	return group.Wait()
}

// ensureAccount makes the service account that the flags ask for, or finds it again after a
// restart, and prints its id on stdout. It does nothing without --account. The secret is
// written before the id: the secret is enough to find the id, so the next start completes
// what a crash between the two has left. A secret that fits no account is an error, and its
// file stays.
func ensureAccount(u *ui.UI, c *cli.Context, admin *devstack.Admin) error {
	name, secretFile := c.String("account"), c.String("account-secret-file")
	if name == "" {
		return nil
	}
	given, err := u.ReadSecret(secretFile)
	var id string
	switch {
	case errors.Is(err, fs.ErrNotExist):
		id, err = newAccount(c, admin)
	case err == nil:
		if id, err = admin.FindAccount(c.Context, name, given); err != nil {
			err = ui.WithHint(fmt.Errorf("%s is there already: %w", secretFile, err), "move the file away to get a new account; nothing was replaced")
		}
	}
	if err == nil {
		err = writeClientID(c.String("account-id-file"), id)
	}
	if err != nil {
		return fmt.Errorf("making the account %s: %w", name, err)
	}
	return u.Outf("%s", id)
}

// newAccount makes an account, writes its secret to a new file and returns its id. A crash
// before the secret is written leaves an account that nobody can use, and the next start
// makes another one. A file with an id and without its secret is refused before the account
// is made.
func newAccount(c *cli.Context, admin *devstack.Admin) (id string, err error) {
	// If this were found after the secret is written, two files would have to be moved away.
	if path := c.String("account-id-file"); path != "" {
		if _, err := os.Lstat(path); err == nil {
			return "", ui.WithHint(fmt.Errorf("%s is there already, without its secret", path), "move the file away to get a new account; nothing was replaced")
		}
	}
	id, clientSecret, err := admin.AddAccount(c.String("account"))
	if err != nil {
		return "", err
	}
	return id, durable.WriteNew(c.String("account-secret-file"), []byte(clientSecret.Expose()+"\n"), durable.Private)
}

// writeClientID writes the id to a new file, or checks that the file has this id already. It
// never replaces another one. An empty path is no file.
func writeClientID(path, id string) error {
	if path == "" {
		return nil
	}
	err := durable.WriteNew(path, []byte(id+"\n"), durable.Public)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(there)) != id {
		return ui.WithHint(fmt.Errorf("%s holds another id", path), "move the file away; nothing was replaced")
	}
	return nil
}
