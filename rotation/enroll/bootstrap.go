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

// ErrFingerprint reports that the fingerprint of a root is needed and was not given, is not
// the hex of a SHA-256, or is that of no certificate which the authority serves. The texts of
// the errors that match it say which.
var ErrFingerprint = errors.New("wrong root fingerprint")

// fingerprintError is an error with a text of its own that matches [ErrFingerprint].
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

// of reports whether f is the fingerprint of c.
func (f *fingerprint) of(c *x509.Certificate) bool { return sha256.Sum256(c.Raw) == *f }

// Bootstrap fetches the trust bundle of the authority at url, given the
// SHA-256 fingerprint (hex, colons allowed) of one of its roots.
//
// Other programs send a request without verification for that. Bootstrap does not: a TLS
// handshake with an empty set of roots fails, and the error has the certificates that the
// server has sent. Our authority appends its roots to the chain, as RFC 8446 §4.4.2 allows.
// The root with the given fingerprint is the right one, whichever server has sent it. The
// bundle then comes over a second connection, which is verified by that root, host name
// included.
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
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown { // the root is not in use yet, or not any more
		return nil, fmt.Errorf("bootstrapping trust from %s: the root %s is served, but the server's certificate is not issued under it: pin the active root: %w",
			address, hex.EncodeToString(pin[:]), err)
	}
	return roots, err
}

// bundle fetches the trust bundle over a connection that is verified by anchors. The bundle
// must have one of the anchors at least. Otherwise the next connection would fail, and such
// a bundle is more likely an error than intended.
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

// presented returns the certificates that a TLS server sends; none of them is trusted. The
// handshake always fails, and crypto/tls has the certificates in the error. The server gets
// nothing but a ClientHello.
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
		return nil, noAnswer{err}
	}
	defer func() { _ = raw.Close() }() // nothing was sent that could be lost
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: host,
		RootCAs:    certs.Pool(), // empty, not nil: nil would mean the system's roots
	})
	err = conn.HandshakeContext(ctx)
	if err == nil { // impossible without roots
		return nil, errors.New("the server was accepted without any root")
	}
	if unverified, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return unverified.UnverifiedCertificates, nil
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return nil, errors.New("the server does not speak TLS")
	}
	return nil, noAnswer{fmt.Errorf("TLS handshake: %w", err)}
}

// selfSigned reports whether c is a root. A pinned leaf or intermediate would verify the
// connection too, but not after the next change of the authority's certificates.
func selfSigned(c *x509.Certificate) bool {
	return c.BasicConstraintsValid && c.IsCA && certs.SelfSigned(c)
}

// describe returns fingerprints and names of certificates, for errors.
func describe(presented []*x509.Certificate) string {
	var out []string
	for _, c := range presented {
		out = append(out, fmt.Sprintf("%s (%s)", certs.Fingerprint(c), oneLine(c.Subject.CommonName)))
	}
	return strings.Join(out, ", ")
}
