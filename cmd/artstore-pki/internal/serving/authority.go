package serving

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/rotation"
)

// requestTimeout bounds the reading of one whole request to the authority: its bodies are small.
const requestTimeout = 30 * time.Second

// answerTimeout bounds a request with its answer. A stream whose peer takes
// nothing ends then, and its connection authorityIdle later: within a minute.
const answerTimeout = 40 * time.Second

// authorityIdle is short because a client is judged by the certificate that it
// opened the connection with: one that renews on the same connection after the
// end of a life of a minute would be refused. step-ca has the same 15 s.
const authorityIdle = 15 * time.Second

// authorityStreams: a client of the authority has one request at a time, or a few.
const authorityStreams = 32

// Authority is a running authority: the embedded CA behind its own rotating certificate.
type Authority struct {
	Identity *rotation.Identity // of the server; the caller closes it at the end

	ca     *ca.Authority
	server *rotation.Server
	logger *slog.Logger
	atCap  *prometheus.CounterVec // nil counts nothing
}

// StartAuthority joins ca and rotation, which do not know each other: the
// authority issues a certificate to itself, and rotation serves with it. It
// returns when there is one. With a registry, connections and requests that are
// refused by a cap are counted there.
func StartAuthority(ctx context.Context, authority *ca.Authority, logger *slog.Logger, registry prometheus.Registerer) (*Authority, error) {
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
	s := &Authority{ca: authority, Identity: id, server: server, logger: logger}
	if registry != nil {
		s.atCap = capMetric(registry)
	}
	return s, nil
}

// Serve answers, and keeps the log, until ctx ends.
func (s *Authority) Serve(ctx context.Context, ln net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.ca.KeepLog(ctx) })
	group.Go(func() error {
		return httpserver.Serve(ctx, ln, httpserver.Config{
			Handler: s.ca.Handler(), Server: s.server, Conns: s.conns, Refused: s.refused, Logger: s.logger,
			BodyTimeout: requestTimeout, WriteTimeout: answerTimeout, Idle: authorityIdle, Streams: authorityStreams,
		})
	})
	return group.Wait()
}

// conns are the caps of pki.yaml in effect, also after a reload.
func (s *Authority) conns() httpserver.Conns {
	l := s.ca.Config().Limits
	return httpserver.Conns{Total: l.Connections, PerAddress: l.ConnectionsPerAddress}
}

// refused counts what a cap refused.
func (s *Authority) refused(what string) {
	if s.atCap != nil {
		s.atCap.WithLabelValues(what).Inc()
	}
}

// capMetric counts what the caps of pki.yaml refuse, by what was refused.
func capMetric(registry prometheus.Registerer) *prometheus.CounterVec {
	m := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "artstore_ca_address_cap_refusals_total",
		Help: "Connections closed and requests refused because their address had too many, by what: connections, requests (open), bodies (unfinished).",
	}, []string{"what"})
	registry.MustRegister(m)
	return m
}

// CRLListen is the flag for the address of the revocation list.
const CRLListen = "crl-listen"

// ServeCRL answers GET /crl in cleartext, if an address is given.
func (s *Authority) ServeCRL(ctx context.Context, c *cli.Context, group *errgroup.Group) error {
	addr := c.String(CRLListen)
	if addr == "" {
		addr = s.ca.Config().CRLAddress
	}
	if addr == "" {
		return nil
	}
	ln, err := Listen(c, CRLListen, addr)
	if err != nil {
		return err
	}
	group.Go(func() error {
		return httpserver.Serve(ctx, ln, httpserver.Config{
			Handler: s.ca.CRLHandler(), Conns: s.conns, Refused: s.refused, Logger: s.logger,
			BodyTimeout: requestTimeout, WriteTimeout: answerTimeout, Idle: authorityIdle,
		})
	})
	return nil
}

// ownCertificate is the authority as the source of its own identity.
type ownCertificate struct{ authority *ca.Authority }

// Watch implements [rotation.Source]: the authority issues a certificate to itself, and
// another one before that ends.
func (o ownCertificate) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	return o.authority.Watch(ctx, func(id ca.ServerIdentity) error {
		return yield(rotation.Material{
			Certificate: id.Certificate, Roots: id.Roots, Revoked: id.Revoked, Issuers: id.Issuers, Version: "issued to itself",
		})
	})
}
