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

// refusedTLS reports whether a server that answers came to no agreement with
// crypto/tls, so that asking it in another way may help.
func refusedTLS(ctx context.Context, err error) bool {
	_, unfinished := errors.AsType[*unfinishedError](err)
	_, foreign := errors.AsType[tls.RecordHeaderError](err)
	return unfinished && !foreign && ctx.Err() == nil
}

// readInPart finds the certificates of a server with which crypto/tls came to no
// agreement: in what it sent, or else by hellos that offer what crypto/tls does
// not. The error is the one of crypto/tls, and says what was agreed on instead.
func (d endpointRequest) readInPart(ctx context.Context, refused error) (tlsread.Answer, error) {
	if u, ok := errors.AsType[*unfinishedError](refused); ok {
		if a, err := tlsread.Replay(u.sent, u.keyLog); err == nil {
			return a, refused
		}
	}
	// A key may fit one version and not a newer one that the server speaks too, and
	// the oldest servers take a hello only if it looks like theirs.
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

// others asks a server for what it does for other clients: it sets the oldest
// version of main, and returns the certificates that the server has beside it. A
// question that gets no answer says nothing: most servers refuse most of them.
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
	// Behind the families, so that only a certificate that a new client never gets is one of an
	// old version. Whoever takes TLS 1.0 mostly takes 1.1 as well, and would choose that.
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

// familyOf is AnyFamily for a key that is of none, and for a certificate that was read in part.
func familyOf(c *cert.Certificate) tlsread.Family {
	if c == nil || c.X509() == nil {
		return tlsread.AnyFamily
	}
	return map[x509.PublicKeyAlgorithm]tlsread.Family{
		x509.RSA: tlsread.RSA, x509.ECDSA: tlsread.ECDSA, x509.Ed25519: tlsread.EdDSA,
	}[c.X509().PublicKeyAlgorithm]
}
