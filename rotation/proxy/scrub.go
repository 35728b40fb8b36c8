package proxy

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// DefaultIdentityHeader is ServerConfig.IdentityHeader for "".
const DefaultIdentityHeader = "X-Client-Identity"

// clientCert is the header of RFC 9440 §2.2 with the certificate of the peer.
const clientCert = "Client-Cert"

// foreign are beginnings of headers by which proxies tell services who the client is. None of
// them passes, because a service may believe one that this proxy does not know. They are in
// the form that plainName gives.
var foreign = []string{
	"client-cert",   // and Client-Cert-Chain, RFC 9440
	"x-client-cert", // some proxies' before RFC 9440
	"ssl-client-", "x-ssl-", "x-tls-", "x-forwarded-client-cert",
}

// login are those of proxies that log users in. An operator may name one of them as the header
// with the identity, because there are services that read no other one.
var login = []string{"remote-", "x-remote-", "x-webauth-", "x-client-dn", "x-client-verify", "x-arr-clientcert", "x-amzn-mtls-"}

// httpoxy is the header that a service of CGI gets as HTTP_PROXY, which its libraries take for
// the proxy of their own requests. No standard has a header of this name.
const httpoxy = "proxy"

// forwarded are those that say where a request comes from. A server sets them itself.
var forwarded = []string{"forwarded", "x-forwarded-", "x-real-ip", "x-original-", "x-envoy-"}

// plainName returns the name of a header as CGI and its successors see it. Case does not
// count (RFC 9110 §5.1), and - and _ are one character (RFC 3875 §4.1.18): a service in
// Python, Ruby or PHP has one variable for X_Client_Identity and X-Client-Identity. Some
// servers do the same with every character that is neither a letter nor a digit.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, name)
}

// scrubber removes what only the proxy may say.
type scrubber struct{ identity string } // plainName of the header with the identity

// scrub removes every header that a service could take for one of the proxy's own, however
// its name is spelled. The default name of the identity is one also where another one is used: a
// service that was told of one too few would believe the peer.
func (s scrubber) scrub(h http.Header) {
	for name := range h {
		plain := plainName(name)
		if plain == s.identity || plain == plainName(DefaultIdentityHeader) || plain == httpoxy || hasAnyPrefix(plain, foreign) || hasAnyPrefix(plain, login) || hasAnyPrefix(plain, forwarded) {
			delete(h, name)
		}
	}
}

func hasAnyPrefix(name string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// byteSequence is a certificate as RFC 9440 §2.1 wants it: a byte sequence of structured
// fields.
func byteSequence(der []byte) string {
	return ":" + base64.StdEncoding.EncodeToString(der) + ":"
}
