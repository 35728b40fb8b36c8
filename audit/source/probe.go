package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/tlsread"
)

// refusedTLS reports whether a server speaks TLS and its handshake with crypto/tls failed.
// Then a hello of package tlsread may succeed.
func refusedTLS(ctx context.Context, err error) bool {
	_, unfinished := errors.AsType[*unfinishedError](err)
	_, foreign := errors.AsType[tls.RecordHeaderError](err)
	return unfinished && !foreign && ctx.Err() == nil
}

// readInPart reads the certificates of a server whose handshake with crypto/tls failed: from
// the bytes that it sent, or else by hellos that offer more than crypto/tls does. The
// error is that of crypto/tls, with the version and the suite that the server accepted.
func (d endpointRequest) readInPart(ctx context.Context, refused error) (tlsread.Answer, error) {
	if u, ok := errors.AsType[*unfinishedError](refused); ok {
		if a, err := tlsread.Replay(u.sent, u.keyLog); err == nil {
			return a, refused
		}
	}
	// The key of a server may not fit the newest version that it speaks, and very old servers
	// refuse a hello that offers newer versions.
	for _, newest := range []uint16{tls.VersionTLS13, tls.VersionTLS12, tls.VersionTLS10} {
		a, err := d.ask(ctx, tlsread.Offer{ServerName: d.config.ServerName, Newest: newest})
		if err == nil {
			return a, fmt.Errorf("%w; it takes %s with %s", refused, tls.VersionName(a.Version), tls.CipherSuiteName(a.Suite))
		}
	}
	return tlsread.Answer{}, refused
}

// ask sends one hello over a connection of its own.
func (d endpointRequest) ask(ctx context.Context, offer tlsread.Offer) (tlsread.Answer, error) {
	conn, err := d.connect(ctx)
	if err != nil {
		return tlsread.Answer{}, err
	}
	defer func() { _ = conn.Close() }()                         // nothing was sent that could be lost
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the reading
	defer stop()
	return tlsread.Ask(conn, offer)
}

// others asks a server how it answers other clients. It sets the oldest version of main, and
// returns the certificates that the server has besides. A hello without an answer is no
// finding, because most servers refuse most of these hellos.
func (d endpointRequest) others(ctx context.Context, c *collection, main *audit.Subject) (out []audit.Subject) {
	seen := []*cert.Certificate{main.Cert}
	add := func(a tlsread.Answer, asked string) {
		if len(a.Certificates) == 0 {
			return
		}
		s := audit.Subject{Kind: audit.KindEndpoint, Place: main.Place + " (" + asked + ")", Host: main.Host, Bundle: main.Bundle}
		refused := c.sendAll(&s, a.Certificates)
		if s.Cert != nil && slices.ContainsFunc(seen, func(o *cert.Certificate) bool { return o != nil && o.Fingerprint == s.Cert.Fingerprint }) {
			return
		}
		seen = append(seen, s.Cert)
		out = append(out, withAuthorities(&s, refused)...)
	}
	own := familyOf(main.Cert)
	for _, family := range []tlsread.Family{tlsread.RSA, tlsread.ECDSA, tlsread.EdDSA} {
		if family == own {
			continue
		}
		a, _ := d.ask(ctx, tlsread.Offer{ServerName: d.config.ServerName, Newest: tls.VersionTLS13, Family: family})
		add(a, family.String())
	}
	// The versions come after the families, so that a certificate is attributed to an old
	// version only if new clients never get it. A server that speaks TLS 1.0 often speaks 1.1
	// too and would choose that, so each is offered alone.
	for _, version := range []uint16{tls.VersionTLS11, tls.VersionTLS10} {
		if main.TLS.Version <= version {
			continue
		}
		a, _ := d.ask(ctx, tlsread.Offer{ServerName: d.config.ServerName, Newest: version})
		if a.Version == 0 {
			break
		}
		main.OldestVersion = a.Version
		add(a, tls.VersionName(a.Version))
	}
	return out
}

// familyOf returns the family of the key of a certificate. It is AnyFamily for another kind of
// key, and for a certificate that crypto/x509 refuses.
func familyOf(c *cert.Certificate) tlsread.Family {
	if c == nil || c.X509() == nil {
		return tlsread.AnyFamily
	}
	return map[x509.PublicKeyAlgorithm]tlsread.Family{
		x509.RSA: tlsread.RSA, x509.ECDSA: tlsread.ECDSA, x509.Ed25519: tlsread.EdDSA,
	}[c.X509().PublicKeyAlgorithm]
}
