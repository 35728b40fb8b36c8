package enroll

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// ErrNotAuthority is matched by the errors of connections to a server whose certificate is
// valid for the host of the URL, but is not that of an authority, or is revoked.
var ErrNotAuthority = errors.New("this server is not the authority")

// checkIsAuthority is the VerifyConnection of every client. crypto/tls has verified chain
// and host name. But services are under the same root, and may have a name of the
// authority, for instance localhost. Only the authority has [stepapi.AuthorityPurpose]. A
// server with a revoked certificate is refused. Neither request nor token was sent yet.
func (c *Client) checkIsAuthority(cs tls.ConnectionState) error {
	leaf := cs.PeerCertificates[0]
	if c.checkRevoked != nil {
		if err := c.checkRevoked(cs.VerifiedChains); err != nil {
			return fmt.Errorf("%w: its %w", ErrNotAuthority, err)
		}
	}
	if stepapi.IsAuthority(leaf) || c.AuthorityName != "" && leaf.VerifyHostname(c.AuthorityName) == nil {
		return nil
	}
	text := fmt.Sprintf("certificate %s of %q lacks the extended key usage id-kp-cmcRA, which an authority has",
		certs.Serial(leaf), oneLine(strings.Join(namesOf(leaf), " ")))
	if c.AuthorityName != "" {
		text += fmt.Sprintf(", and the name %q", oneLine(c.AuthorityName))
	}
	return fmt.Errorf("%w: its %s", ErrNotAuthority, text)
}

// checkAuthorityName refuses a name that is neither a DNS name nor an IP address. "" passes.
func checkAuthorityName(name string) error {
	if name != "" && net.ParseIP(name) == nil && strings.ContainsAny(name, "*@/: \t") {
		return fmt.Errorf("the name of the authority must be a DNS name or an IP address, got %q", oneLine(name))
	}
	return nil
}

// namesOf returns the common name and the subject alternative names of a certificate.
func namesOf(c *x509.Certificate) []string {
	if c.Subject.CommonName == "" {
		return certs.Names(c)
	}
	return append([]string{c.Subject.CommonName}, certs.Names(c)...)
}
