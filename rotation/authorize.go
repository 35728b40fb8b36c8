package rotation

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
)

// Authorizer decides whether a peer is admitted: nil admits it. It is called after the chain was
// verified, in full and in resumed handshakes, and before a TLS 1.3 client has proven
// that it has the key. So it must have no side effects. Its error ends the handshake.
type Authorizer func(tls.ConnectionState) error

// ErrPeerDenied is matched by the errors of [AllowNames] and [AnyVerifiedPeer].
var ErrPeerDenied = errors.New("peer is not allowed")

var errNoCertificate = fmt.Errorf("%w: no verified certificate", ErrPeerDenied)

// AllowNames accepts a peer whose leaf has at least one of the names as DNS or URI
// subject alternative name. Names are compared exactly: there are no wildcards and no
// suffixes, and the common name does not count. Without names every peer is refused.
func AllowNames(names ...string) Authorizer {
	allowed := make(map[string]bool, len(names))
	for _, n := range names {
		if n != "" {
			allowed[n] = true
		}
	}
	return func(cs tls.ConnectionState) error {
		if err := verified(cs); err != nil {
			return err
		}
		leaf := cs.PeerCertificates[0]
		if slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return allowed[n] }) {
			return nil
		}
		for _, u := range leaf.URIs {
			if allowed[u.String()] {
				return nil
			}
		}
		return fmt.Errorf("%w: none of its names %q is on the list", ErrPeerDenied, leaf.DNSNames)
	}
}

// AnyVerifiedPeer accepts every peer whose chain verifies to the trust bundle.
func AnyVerifiedPeer() Authorizer { return verified }

func verified(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 || len(cs.VerifiedChains) == 0 {
		return errNoCertificate
	}
	return nil
}
