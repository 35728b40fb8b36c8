package devstack

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Headers of `artstore-pki proxy server`, see docs/proxy.md.
const (
	identityHeader = "X-Client-Identity"
	certHeader     = "Client-Cert" // RFC 9440 §2.2
)

// thumbprintKey is the key in a context for the thumbprint of the certificate that a proxy has
// verified.
type thumbprintKey struct{}

// BehindProxy serves next on a listener without TLS, behind a proxy that has verified the
// certificate of the caller and says in headers who that is. A request is answered with 403
// unless it has exactly one X-Client-Identity, with a name of allow, and exactly one
// Client-Cert, with a certificate; tokens that are bound (RFC 8705) are compared with it.
//
// Whoever reaches the listener can send these headers. So requests over an address that other
// machines can reach are refused too: what remains is a Unix socket, whose mode says who
// connects, and loopback, where each user of this machine can be anybody.
func BehindProxy(next http.Handler, allow ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		thumbprint, err := calledThroughProxy(r, allow)
		if err != nil {
			writeJSON(w, http.StatusForbidden, map[string]string{"detail": err.Error()})
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), thumbprintKey{}, thumbprint)))
	})
}

// calledThroughProxy returns the thumbprint of the certificate of a caller who is allowed.
func calledThroughProxy(r *http.Request, allow []string) (string, error) {
	if !fromThisMachine(r) {
		return "", errors.New("this address can be reached by other machines, so the identity of a caller is not believed")
	}
	names := r.Header.Values(identityHeader)
	if len(names) != 1 || !slices.Contains(allow, names[0]) {
		return "", errors.New("the proxy names no caller who is allowed")
	}
	certs := r.Header.Values(certHeader)
	if len(certs) != 1 {
		return "", errors.New("the proxy shows no certificate of the caller, or more than one")
	}
	return headerThumbprint(certs[0])
}

// fromThisMachine reports whether a request came over a Unix socket or an address of loopback.
func fromThisMachine(r *http.Request) bool {
	switch at := r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return at.IP.IsLoopback()
	}
	return false
}

// headerThumbprint returns the x5t#S256 (RFC 8705 §3.1) of the certificate in a Client-Cert
// header: the base64 of its DER form between colons (RFC 9440 §2.1), in its only spelling.
func headerThumbprint(value string) (string, error) {
	der, err := base64.StdEncoding.DecodeString(strings.Trim(value, ":"))
	if err == nil {
		_, err = x509.ParseCertificate(der)
	}
	if err != nil || value != ":"+base64.StdEncoding.EncodeToString(der)+":" {
		return "", errors.New("the proxy shows a certificate that cannot be read")
	}
	sum := sha256.Sum256(der)
	return base64URL(sum[:]), nil
}
