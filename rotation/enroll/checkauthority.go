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

// ErrNotAuthority is matched by the errors of connections to a server that has a
// good certificate for the host of the URL and is not the authority.
var ErrNotAuthority = errors.New("this server is not the authority")

// checkIsAuthority is the VerifyConnection of every client. crypto/tls has verified the
// chain and the host name; but services are under the same root, and may have a
// name of the authority, localhost for instance. What tells the authority from
// them is [stepapi.AuthorityPurpose]. A server with a revoked certificate is refused as
// a peer would refuse it. Nothing was sent yet, neither request nor token.
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

// checkAuthorityName refuses what no certificate can have as a name.
func checkAuthorityName(name string) error {
	if name != "" && net.ParseIP(name) == nil && strings.ContainsAny(name, "*@/: \t") {
		return fmt.Errorf("the name of the authority must be a DNS name or an IP address, got %q", oneLine(name))
	}
	return nil
}

// namesOf are the common name and the other names of a certificate.
func namesOf(c *x509.Certificate) []string {
	if c.Subject.CommonName == "" {
		return certs.Names(c)
	}
	return append([]string{c.Subject.CommonName}, certs.Names(c)...)
}
