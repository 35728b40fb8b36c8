// Package caserver serves an authority behind its own rotating certificate: it joins ca and
// rotation, which do not import each other.
//
// Invariant: a part that fails ends the others, because an authority must not issue what its log
// does not get (TestScript/log).
package caserver

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
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/rotation"
)

// requestTimeout bounds the reading of one whole request to the authority: its bodies are small.
const requestTimeout = 30 * time.Second

// answerTimeout bounds a request with its answer. An HTTP/2 stream whose peer reads nothing ends
// then, and its connection after another authorityIdle: within a minute together.
const answerTimeout = 40 * time.Second

// authorityIdle is how long a connection without requests stays open. It is short because a
// client is judged by the certificate with which it opened the connection. If certificates live
// a minute, a renewal over a connection of before would be refused as expired. step-ca has the
// same 15 s.
const authorityIdle = 15 * time.Second

// authorityStreams is the number of HTTP/2 streams of a connection. A client of the authority has
// one request at a time, or a few.
const authorityStreams = 32

// Authority is a running authority: the embedded CA behind its own rotating certificate.
type Authority struct {
	Identity *rotation.Identity // of the server; the caller closes it at the end

	ca     *ca.Authority
	server *rotation.Server
	logger *slog.Logger
	atCap  *prometheus.CounterVec // nil counts nothing
}

// StartAuthority joins ca and rotation, which do not import each other: the authority issues a
// certificate to itself, and rotation serves with it. It returns when it has a certificate. If
// registry is not nil, it counts there the connections and requests that a cap refuses. The
// caller closes the identity, after Serve has returned.
func StartAuthority(ctx context.Context, authority *ca.Authority, logger *slog.Logger, registry prometheus.Registerer) (*Authority, error) {
	id, err := rotation.Open(ctx, rotation.Config{Source: ownCertificate{authority}, Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("getting the authority's own certificate: %w", err)
	}
	// A service that enrols has no certificate yet, so client certificates are optional. No
	// other server of this program permits that. The handlers demand a certificate where the
	// API needs one.
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

// Serve answers requests on ln, keeps the log of the record and tells services of changes, until
// ctx ends. If one of these fails, the others end as well: an authority must not issue what its
// log does not get.
func (s *Authority) Serve(ctx context.Context, ln net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.ca.KeepLog(ctx) })
	group.Go(func() error { return s.ca.KeepWatchers(ctx) })
	group.Go(func() error {
		return httpserver.Serve(ctx, ln, httpserver.Config{
			Handler: s.ca.Handler(), Server: s.server, Conns: s.conns, Refused: s.refused, Logger: s.logger,
			BodyTimeout: requestTimeout, WriteTimeout: answerTimeout, Idle: authorityIdle, Streams: authorityStreams,
		})
	})
	return group.Wait()
}

// conns returns the caps on connections that are in effect, also after a reload.
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
	for _, what := range []string{httpserver.LimitConns, httpserver.LimitRequests, httpserver.LimitBodies} {
		m.WithLabelValues(what) // Prometheus sees no increase in a counter that begins at 1
	}
	registry.MustRegister(m)
	return m
}

// CRLListen is the flag for the address of the revocation list.
const CRLListen = "crl-listen"

// ServeCRL answers GET /crl in cleartext if the flag or pki.yaml has an address for it. A list is
// signed, and RFC 5280 §8 advises against https here: a client might need the list to verify
// the server of the list.
func (s *Authority) ServeCRL(ctx context.Context, c *cli.Context, group *errgroup.Group) error {
	addr := c.String(CRLListen)
	if addr == "" {
		addr = s.ca.Config().CRLAddress
	}
	if addr == "" {
		return nil
	}
	ln, err := serving.Listen(c, CRLListen, addr)
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

// ownCertificate is the source of the identity of the authority: the authority itself.
type ownCertificate struct{ authority *ca.Authority }

// Watch implements [rotation.Source]: the authority issues a certificate to itself, and another one
// before that one ends.
func (o ownCertificate) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	return o.authority.Watch(ctx, func(id ca.ServerIdentity) error {
		return yield(rotation.Material{
			Certificate: id.Certificate, Roots: id.Roots, Revoked: id.Revoked, Issuers: id.Issuers, Version: "issued to itself",
		})
	})
}
