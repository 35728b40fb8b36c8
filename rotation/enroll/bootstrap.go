package enroll

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/internal/certs"
)

// fingerprint is the SHA-256 of a certificate's DER.
type fingerprint [sha256.Size]byte

// ErrFingerprint reports that the fingerprint of a root was not given where one is
// needed, is none, or is that of no certificate which the authority serves. It is for
// errors.Is; the errors say which.
var ErrFingerprint = errors.New("wrong root fingerprint")

// fingerprintError is an [ErrFingerprint] in words.
type fingerprintError string

func (e fingerprintError) Error() string        { return string(e) }
func (e fingerprintError) Is(target error) bool { return target == ErrFingerprint }

// parseFingerprint reads hex as [certs.ParseFingerprint] does. Its error is an
// [ErrFingerprint] and does not quote the text, which may be part of a token.
func parseFingerprint(s string) (*fingerprint, error) {
	var f fingerprint
	text, err := certs.ParseFingerprint(s)
	if err == nil {
		_, err = hex.Decode(f[:], []byte(text))
	}
	if err != nil {
		return nil, fingerprintError("the root fingerprint must be a SHA-256 in hex (64 digits)")
	}
	return &f, nil
}

func (f *fingerprint) of(c *x509.Certificate) bool { return sha256.Sum256(c.Raw) == *f }

// Bootstrap fetches the trust bundle of the authority at url, given the
// SHA-256 fingerprint (hex, colons allowed) of one of its roots.
//
// The usual way is one request without verification. This one needs none: a
// TLS handshake against an empty set of roots fails, and its error holds the
// certificates that were served. Our authority appends its roots to the chain,
// as RFC 8446 §4.4.2 allows; the one with the wanted fingerprint is what the
// operator pinned, whoever delivered it. The bundle then comes over a second
// connection, verified against that root like any other, host name included.
//
// A stock step-ca does not serve its root: give its root file as
// [Config.Roots] instead.
func Bootstrap(ctx context.Context, url, fingerprint string) ([]*x509.Certificate, error) {
	pin, err := parseFingerprint(fingerprint)
	if err != nil {
		return nil, fmt.Errorf("bootstrapping trust: %w", err)
	}
	d := dialer{timeout: defaultTimeout, dial: (&net.Dialer{Timeout: defaultTimeout}).DialContext}
	return d.bootstrap(ctx, url, pin)
}

func (d dialer) bootstrap(ctx context.Context, address string, pin *fingerprint) ([]*x509.Certificate, error) {
	if _, err := parseURL(address); err != nil {
		return nil, fmt.Errorf("bootstrapping trust: %w", err)
	}
	served, err := d.presented(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("bootstrapping trust from %s: %w", address, err)
	}
	i := slices.IndexFunc(served, pin.of)
	if i < 0 {
		return nil, fingerprintError(fmt.Sprintf("bootstrapping trust from %s: no certificate with the fingerprint %s: served were %s",
			address, hex.EncodeToString(pin[:]), describe(served)))
	}
	root := served[i]
	if !selfSigned(root) {
		return nil, fmt.Errorf("bootstrapping trust from %s: %s is not a self-signed CA certificate: pin the root, not what it issued",
			address, hex.EncodeToString(pin[:]))
	}
	roots, err := d.bundle(ctx, address, []*x509.Certificate{root})
	if errors.As(err, new(x509.UnknownAuthorityError)) { // one that was added and not activated, or one that was retired
		return nil, fmt.Errorf("bootstrapping trust from %s: the root %s is served, but the server's certificate is not issued under it: pin the active root: %w",
			address, hex.EncodeToString(pin[:]), err)
	}
	return roots, err
}

// bundle fetches the trust bundle over a connection verified by anchors, which
// the bundle must still have at least one of: else the next connection would
// be refused, and it is more likely an error than a plan.
func (d dialer) bundle(ctx context.Context, address string, anchors []*x509.Certificate) ([]*x509.Certificate, error) {
	c, err := d.newClient(address, anchors, nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	roots, err := c.Roots(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range anchors {
		if slices.ContainsFunc(roots, a.Equal) {
			return roots, nil
		}
	}
	return nil, fmt.Errorf("fetching the trust bundle: %s serves a bundle without any of the roots trusted so far", address)
}

// presented returns the certificates that a TLS server shows, none of them
// trusted. That the handshake fails is the plan: crypto/tls keeps the chain in
// the error, and nothing was said to the server that an unverified server may not hear.
func (d dialer) presented(ctx context.Context, address string) ([]*x509.Certificate, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = "443"
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	raw, err := d.dial(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	defer func() { _ = raw.Close() }() // nothing was sent that could be lost
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: host,
		RootCAs:    certs.Pool(), // empty, not nil: nil would mean the system's roots
	})
	err = conn.HandshakeContext(ctx)
	var unverified *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unverified):
		return unverified.UnverifiedCertificates, nil
	case err == nil: // cannot be: no root, no chain
		return nil, errors.New("the server was accepted without any root")
	case errors.As(err, new(tls.RecordHeaderError)):
		return nil, errors.New("the server does not speak TLS")
	}
	return nil, fmt.Errorf("TLS handshake: %w", err)
}

// selfSigned reports a CA certificate that is its own anchor. A pinned leaf or
// intermediate would verify the connection as well, and leave us with an anchor
// that a rotation of the authority invalidates.
func selfSigned(c *x509.Certificate) bool {
	return c.BasicConstraintsValid && c.IsCA && certs.SelfSigned(c)
}

// describe names certificates so that an operator can tell what was served instead.
func describe(presented []*x509.Certificate) string {
	var out []string
	for _, c := range presented {
		out = append(out, fmt.Sprintf("%s (%s)", certs.Fingerprint(c), oneLine(c.Subject.CommonName)))
	}
	return strings.Join(out, ", ")
}
