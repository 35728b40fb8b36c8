package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/secret"
)

const (
	// requestTimeout bounds the reading of one whole request to the authority: its bodies are small.
	requestTimeout = 30 * time.Second
	// answerTimeout bounds a request with its answer. A stream whose peer takes
	// nothing ends then, and its connection authorityIdle later: within a minute.
	answerTimeout = 40 * time.Second
	// authorityIdle is short because a client is judged by the certificate that it
	// opened the connection with: one that renews on the same connection after the
	// end of a life of a minute would be refused. step-ca has the same 15 s.
	authorityIdle = 15 * time.Second
	// authorityStreams: a client of the authority has one request at a time, or a few.
	authorityStreams = 32
)

// gcPercent is GOGC of serve: its heap is small, so the default collects it so
// often that a fifth of all CPU time goes there. It costs some 30 MiB.
const gcPercent = 400

func serveCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the authority",
		Description: `Answers the step-ca HTTP API (the step CLI works unchanged), and ACME if pki.yaml has a
provisioner for it, over TLS 1.3 with a certificate that it issues to itself and renews.
Metrics and readiness have a listener of their own, for loopback. SIGHUP reads pki.yaml, the
password file and the keys again and opens the audit log anew: what is bad is reported and
the old state stays. SIGTERM lets requests in flight finish.`,
		Flags: append(u.LogFlags(slog.LevelInfo),
			dirFlag(), passwordFileFlag(), listenFlag(""), readyFileFlag(),
			metricsFlag("; overrides pki.yaml"),
			&cli.StringFlag{Name: "audit-log", Usage: "`FILE` that gets a line of JSON for all that is issued, revoked or refused; overrides pki.yaml"},
			&cli.StringFlag{Name: flagCRLListen, Usage: "`HOST:PORT` for GET /crl in cleartext; overrides pki.yaml"},
		),
		Action: u.Action(runServe),
	}
}

func runServe(u *ui.UI, c *cli.Context) (err error) {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	if u.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	logger := u.Logger(slog.LevelInfo)
	registry := newRegistry()
	authority, err := openAuthority(u, c, logger, registry)
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
	server.atCap = capMetric(registry)
	group.Go(func() error { return server.serve(ctx, ln) })
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // before anybody learns that it serves: without a receiver the signal kills
	defer signal.Stop(hangup)
	group.Go(func() error { return reloadOn(ctx, u, hangup, authority) })
	if err := metrics.start(ctx, c, group); err != nil {
		return errors.Join(err, ln.Close())
	}
	if err := server.serveCRL(ctx, c, group); err != nil {
		return errors.Join(err, ln.Close())
	}
	if err := announce(u, c, "authority", ln); err != nil {
		return errors.Join(err, ln.Close())
	}
	if err := group.Wait(); err != nil {
		return err
	}
	u.Infof("authority: stopped")
	return nil
}

func openAuthority(u *ui.UI, c *cli.Context, logger *slog.Logger, registry prometheus.Registerer) (*ca.Authority, error) {
	dir, opt := c.String(flagDir), ca.Options{
		Dir: c.String(flagDir), PasswordFile: c.String(flagPasswordFile), AuditLog: c.String("audit-log"), Logger: logger, Registerer: registry,
	}
	if opt.PasswordFile == "" {
		opt.Password = secret.New(u.Getenv(envPassword))
	}
	authority, err := ca.Open(c.Context, opt)
	if err != nil {
		err = hintStateDir(fmt.Errorf("opening the authority in %s: %w", dir, err), dir, hintDoctor)
	}
	return authority, err
}

// authorityServer is a running authority: the embedded CA behind its own rotating certificate.
type authorityServer struct {
	authority *ca.Authority
	identity  *rotation.Identity
	server    *rotation.Server
	logger    *slog.Logger
	atCap     *prometheus.CounterVec // nil counts nothing
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

// serve answers, and keeps the log, until ctx ends.
func (s *authorityServer) serve(ctx context.Context, ln net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.authority.KeepLog(ctx) })
	group.Go(func() error {
		return httpserver.Serve(ctx, ln, httpserver.Config{
			Handler: s.authority.Handler(), Server: s.server, Conns: s.conns, Refused: s.refused, Logger: s.logger,
			BodyTimeout: requestTimeout, WriteTimeout: answerTimeout, Idle: authorityIdle, Streams: authorityStreams,
		})
	})
	return group.Wait()
}

// conns are the caps of pki.yaml in effect, also after a reload.
func (s *authorityServer) conns() httpserver.Conns {
	l := s.authority.Config().Limits
	return httpserver.Conns{Total: l.Connections, PerAddress: l.ConnectionsPerAddress}
}

func (s *authorityServer) refused(what string) {
	if s.atCap != nil {
		s.atCap.WithLabelValues(what).Inc()
	}
}

func capMetric(registry prometheus.Registerer) *prometheus.CounterVec {
	m := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "artstore_ca_address_cap_refusals_total",
		Help: "Connections closed and requests refused because their address had too many, by what: connections, requests (open), bodies (unfinished).",
	}, []string{"what"})
	registry.MustRegister(m)
	return m
}

const flagCRLListen = "crl-listen"

// serveCRL answers GET /crl in cleartext, if an address is given.
func (s *authorityServer) serveCRL(ctx context.Context, c *cli.Context, group *errgroup.Group) error {
	addr := c.String(flagCRLListen)
	if addr == "" {
		addr = s.authority.Config().CRLAddress
	}
	if addr == "" {
		return nil
	}
	ln, err := listen(c, flagCRLListen, addr)
	if err != nil {
		return err
	}
	group.Go(func() error {
		return httpserver.Serve(ctx, ln, httpserver.Config{
			Handler: s.authority.CRLHandler(), Conns: s.conns, Refused: s.refused, Logger: s.logger,
			BodyTimeout: requestTimeout, WriteTimeout: answerTimeout, Idle: authorityIdle,
		})
	})
	return nil
}

// ownCertificate is the authority as the source of its own identity.
type ownCertificate struct{ authority *ca.Authority }

func (o ownCertificate) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	return o.authority.Watch(ctx, func(id ca.ServerIdentity) error {
		return yield(rotation.Material{
			Certificate: id.Certificate, Roots: id.Roots, Revoked: id.Revoked, Issuers: id.Issuers, Version: "issued to itself",
		})
	})
}

// reloadOn reads pki.yaml again at each signal until ctx ends.
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
