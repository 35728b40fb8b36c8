package challenge

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/tlsalert"
)

// bodyLimit is how much of an answer is read; a key authorization has about 90 bytes.
const bodyLimit = 4 << 10

// http fetches the key authorization (RFC 8555 §8.3).
func (t *attempt) http(ctx context.Context, ch Challenge) *problem.Document {
	host, port := ch.Name, t.v.conf.HTTPPort
	inURL := host
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() {
		inURL = "[" + host + "]"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+inURL+"/.well-known/acme-challenge/"+ch.Token, nil)
	if err != nil {
		return problem.New(problem.Malformed, "http-01: the name makes no URL")
	}
	resp, err := t.newClient().Do(req)
	if err != nil {
		return t.refused(HTTP01, host, port, err)
	}
	defer func() { _ = resp.Body.Close() }() // the rest of the body is not needed
	if resp.StatusCode != http.StatusOK {
		more := ""
		if resp.StatusCode/100 == 3 {
			more = "; redirects are not followed"
		}
		return problem.New(problem.IncorrectResponse, "http-01: %s answered with status %d, want 200 with the key authorization%s", t.at(host, port), resp.StatusCode, more)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, bodyLimit))
	if err != nil {
		return problem.New(problem.Connection, "http-01: reading the answer of %s: %s", t.at(host, port), reason(err))
	}
	// Whitespace at the end is ignored (RFC 8555 §8.3).
	if got := strings.TrimRight(string(body), " \t\r\n"); subtle.ConstantTimeCompare([]byte(got), []byte(ch.KeyAuthorization)) != 1 {
		return problem.New(problem.IncorrectResponse, "http-01: %s answered with status 200, but its content is not the key authorization", t.at(host, port))
	}
	return nil
}

// tlsALPN makes the handshake of RFC 8737 §3. The answer is in the certificate, which is
// self-signed. So the handshake uses an empty pool and always fails, and the error contains
// the certificate, which answers then compares (docs/design/0003). Whether the server has
// the key of the certificate does not matter: anybody can make such a key, and only the
// digest in the certificate proves the account.
func (t *attempt) tlsALPN(ctx context.Context, ch Challenge) *problem.Document {
	host, port := ch.Name, t.v.conf.TLSPort
	raw, err := t.dial(ctx, "tcp", host, port)
	if err != nil {
		return t.refused(TLSALPN01, host, port, err)
	}
	conn := tls.Client(raw, &tls.Config{
		NextProtos: []string{alpnProtocol},
		MinVersion: tls.VersionTLS12, // RFC 8737 §4
		ServerName: serverName(host),
		RootCAs:    certs.Pool(),
	})
	defer func() { _ = conn.Close() }() // nothing was written to it
	err = conn.HandshakeContext(ctx)
	unverified, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok {
		return problem.New(problem.TLS, "tls-alpn-01: the handshake with %s failed: %s", t.at(host, port), tlsReason(err))
	}
	answer := answers(conn.ConnectionState().NegotiatedProtocol, unverified.UnverifiedCertificates, ch)
	if answer != nil {
		answer.Detail = "tls-alpn-01: " + t.at(host, port) + ": " + answer.Detail
	}
	return answer
}

const alpnProtocol = "acme-tls/1"

// tlsReason returns our text for an alert (RFC 8446 §6) or for another error of a handshake.
func tlsReason(err error) string {
	if text := tlsalert.Text(err); text != "" {
		return "alert of the server: " + strings.TrimPrefix(text, "tls: ")
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the server does not speak TLS"
	}
	return reason(err)
}

// serverName returns the SNI. For an IP address it is the reverse name (RFC 8738 §6).
func serverName(name string) string {
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return name
	}
	return reverseName(addr)
}

func reverseName(addr netip.Addr) string {
	if addr.Is4() {
		a := addr.As4()
		return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa", a[3], a[2], a[1], a[0])
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	a := addr.As16()
	for i := len(a) - 1; i >= 0; i-- {
		b.Write([]byte{hex[a[i]&15], '.', hex[a[i]>>4], '.'})
	}
	return b.String() + "ip6.arpa"
}

// acmeIdentifier is id-pe-acmeIdentifier (RFC 8737 §3).
var acmeIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// answers compares a certificate with a challenge (RFC 8737 §3): it must have exactly the one
// name, and the digest of the key authorization in a critical extension.
func answers(protocol string, chain []*x509.Certificate, ch Challenge) *problem.Document {
	if protocol != alpnProtocol {
		return problem.New(problem.IncorrectResponse, "the server did not choose the protocol %s", alpnProtocol)
	}
	if len(chain) == 0 {
		return problem.New(problem.IncorrectResponse, "the server sent no certificate")
	}
	leaf := chain[0]
	if !namesOnly(leaf, ch.Name) {
		return problem.New(problem.IncorrectResponse, "the certificate does not have %s as its only name", ch.Name)
	}
	digest := sha256.Sum256([]byte(ch.KeyAuthorization))
	for _, ext := range leaf.Extensions {
		if !ext.Id.Equal(acmeIdentifier) {
			continue
		}
		var got []byte
		rest, err := asn1.Unmarshal(ext.Value, &got)
		switch {
		case !ext.Critical:
			return problem.New(problem.IncorrectResponse, "the extension acmeIdentifier is not critical")
		case err != nil || len(rest) > 0 || subtle.ConstantTimeCompare(got, digest[:]) != 1:
			return problem.New(problem.IncorrectResponse, "the extension acmeIdentifier is not the digest of the key authorization")
		}
		return nil
	}
	return problem.New(problem.IncorrectResponse, "the certificate has no extension acmeIdentifier")
}

func namesOnly(leaf *x509.Certificate, name string) bool {
	if len(leaf.EmailAddresses)+len(leaf.URIs) > 0 || len(leaf.DNSNames)+len(leaf.IPAddresses) != 1 {
		return false
	}
	if ip := net.ParseIP(name); ip != nil {
		return len(leaf.IPAddresses) == 1 && leaf.IPAddresses[0].Equal(ip)
	}
	return len(leaf.DNSNames) == 1 && strings.EqualFold(leaf.DNSNames[0], name)
}
