package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/internal/httpsrv"
	"github.com/artstore/artstore-pki/rotation"
)

// requestTimeout bounds one whole request to the authority: its bodies are small.
const requestTimeout = 30 * time.Second

func serveCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the authority",
		Description: `Answers the step-ca HTTP API (the step CLI works unchanged) over TLS 1.3 with a certificate
that it issues to itself and renews. Metrics and readiness have a listener of their own,
for loopback. SIGHUP reads pki.yaml again: a bad file is reported and the old
configuration stays. SIGTERM lets requests in flight finish.`,
		Flags: []cli.Flag{
			dirFlag(), passwordFileFlag(), listenFlag(""), readyFileFlag(),
			metricsFlag("; overrides pki.yaml"),
		},
		Action: u.runServe,
	}
}

func (u *ui) runServe(c *cli.Context) (err error) {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	logger := u.logger(slog.LevelInfo)
	registry := newRegistry()
	authority, err := u.openAuthority(c, logger, registry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, authority.Close()) }()

	addr, metrics := c.String(flagListen), metricsServer{address: c.String(flagMetrics), registry: registry, ready: authority.Ready}
	if addr == "" {
		addr = authority.Config().Address
	}
	if metrics.address == "" {
		metrics.address = authority.Config().Metrics
	}
	ln, err := listen(c, flagListen, addr)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(c.Context)
	server, err := startAuthority(ctx, authority, logger)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer func() { err = errors.Join(err, server.identity.Close()) }()
	group.Go(func() error { return server.serve(ctx, ln) })
	group.Go(func() error { return u.reloadOnHangup(ctx, authority) })
	if err := metrics.start(ctx, c, group); err != nil {
		return errors.Join(err, ln.Close())
	}
	if err := u.announce(c, "authority", ln); err != nil {
		return errors.Join(err, ln.Close())
	}
	if err := group.Wait(); err != nil {
		return err
	}
	u.say("authority: stopped")
	return nil
}

func (u *ui) openAuthority(c *cli.Context, logger *slog.Logger, registry prometheus.Registerer) (*ca.Authority, error) {
	pw, err := u.password(c)
	if err != nil {
		return nil, err
	}
	dir := c.String(flagDir)
	authority, err := ca.Open(c.Context, ca.Options{Dir: dir, Password: pw, Logger: logger, Registerer: registry})
	if err != nil {
		err = fmt.Errorf("opening the authority in %s: %w", dir, err)
		if errors.Is(err, os.ErrNotExist) {
			return nil, withHint(err, "make it with: artstore-pki init --dir %s", dir)
		}
		err = withHint(err, "nothing was changed; artstore-pki init --dir NEW makes a commented pki.yaml and a sound directory to compare with")
	}
	return authority, err
}

// authorityServer is a running authority: the embedded CA behind its own rotating certificate.
type authorityServer struct {
	authority *ca.Authority
	identity  *rotation.Identity
	server    *rotation.Server
	logger    *slog.Logger
}

// startAuthority joins ca and rotation, which do not know each other.
func startAuthority(ctx context.Context, authority *ca.Authority, logger *slog.Logger) (*authorityServer, error) {
	id, err := rotation.Open(ctx, rotation.Config{Source: ownCertificate{authority}, Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("getting the authority's own certificate: %w", err)
	}
	// Enrolment has no certificate yet, so a client certificate is optional here
	// and here only; the handlers demand one where the API needs it.
	server, err := id.Server(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer(), ClientCertOptional: true, SendRoots: true})
	if err != nil {
		return nil, errors.Join(err, id.Close())
	}
	return &authorityServer{authority: authority, identity: id, server: server, logger: logger}, nil
}

func (s *authorityServer) serve(ctx context.Context, ln net.Listener) error {
	return httpsrv.Serve(ctx, ln, httpsrv.Config{
		Handler: s.authority.Handler(), Server: s.server, BodyTimeout: requestTimeout, Logger: s.logger,
	})
}

// ownCertificate is the authority as the source of its own identity.
type ownCertificate struct{ authority *ca.Authority }

func (o ownCertificate) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	return o.authority.Watch(ctx, func(cert tls.Certificate, roots []*x509.Certificate) error {
		return yield(rotation.Material{Certificate: cert, Roots: roots, Version: "issued to itself"})
	})
}

// reloadOnHangup reads pki.yaml again at each SIGHUP until ctx ends.
func (u *ui) reloadOnHangup(ctx context.Context, authority *ca.Authority) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
		}
		if err := authority.Reload(ctx); err != nil {
			u.say("authority: configuration not reloaded, the old one stays: %v", err)
			continue
		}
		u.say("authority: configuration reloaded")
	}
}
