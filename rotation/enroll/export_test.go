package enroll

import (
	"crypto"
	"crypto/x509"
	"net/http"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/secret"
)

// Hooks for the tests outside: what is a pure function or a clock in here.

// Retry mirrors the input of the backoff.
type Retry struct {
	Failures                    int
	Life, Remaining, RetryAfter time.Duration
	Slow                        bool
	U                           float64
}

func (r Retry) Delay() time.Duration {
	return retry{r.Failures, r.Life, r.Remaining, r.RetryAfter, r.Slow}.delay(r.U)
}

func Tick(life time.Duration) time.Duration                { return tick(life) }
func TrustEvery(configured, l time.Duration) time.Duration { return refreshInterval(configured, l) }
func Look(failures int, every, retryAfter time.Duration, u float64) time.Duration {
	return refreshDelay(failures, every, retryAfter, u)
}
func SkewOf(date, sent, got time.Time) time.Duration { return skewOf(date, sent, got) }
func Planned(received, issued, notAfter time.Time, skew time.Duration, u float64) time.Time {
	return validity{received, issued, notAfter}.renewalTime(skew, u)
}
func RetryAfter(h http.Header) time.Duration { return retryAfter(h) }
func ParseURL(s string) (string, error)      { return parseURL(s) }

func ParseFingerprint(s string) ([32]byte, error) {
	f, err := parseFingerprint(s)
	if err != nil {
		return [32]byte{}, err
	}
	return *f, nil
}

// ParseToken returns what a token asks for.
func ParseToken(t secret.String) (subject string, names []string, pinned bool, err error) {
	c, err := parseToken(t)
	return c.subject, c.names, c.pin != nil, err
}

// Request makes a CSR for a new key.
func Request(kind KeyType, subject string, names []string) ([]byte, error) {
	key, err := kind.generate()
	if err != nil {
		return nil, err
	}
	return request(key, subject, names)
}

func (s *Source) SetClock(now func() time.Time)   { s.now = now }
func (s *Source) SetRandom(random func() float64) { s.random = random }

// AlarmDue reports whether a job planned at set for at runs at now.
func AlarmDue(set, at, now time.Time) bool {
	t := dueTime{set: set, at: at}
	return t.due(now)
}

// ParseLists reads a crl.pem that lies beside m, and counts its lists.
func ParseLists(m rotation.Material, data []byte) (int, error) {
	i, err := newIdentity(m)
	if err != nil {
		return 0, err
	}
	ls, err := parseLists(data, i)
	return len(ls), err
}

// EncodeLists writes a crl.pem with these issuers.
func EncodeLists(revoked []*x509.RevocationList, issuers []*x509.Certificate) []byte {
	return append(pemfile.EncodeRevocationLists(revoked), pemfile.EncodeCertificates(issuers)...)
}

// Merge is merge for lists of these issuers.
func Merge(have, got []*x509.RevocationList, issuers ...*x509.Certificate) []*x509.RevocationList {
	sign := func(in []*x509.RevocationList) (out lists) {
		for _, l := range in {
			s, err := signedBy(l, issuers)
			if err != nil {
				panic(err)
			}
			out = append(out, s)
		}
		return out
	}
	return merge(sign(have), sign(got)).raw()
}

// Proof makes a renewal token for a key, with its certificate.
func Proof(key crypto.Signer, cert *x509.Certificate, now time.Time) (secret.String, error) {
	i := &identity{chain: []*x509.Certificate{cert}, key: key}
	return i.renewalToken("ca.test", "/renew", nil, now)
}

// Consistent checks a proof between two trees.
func Consistent(from int64, old [32]byte, to int64, root [32]byte, proof [][]byte) bool {
	return consistent(logHead{size: from, root: old}, logHead{size: to, root: root}, proof)
}

// ParseLogHead returns the size that a head says.
func ParseLogHead(text []byte) (int64, error) {
	h, err := parseLogHead(text)
	return h.size, err
}

// RewriteOrigin reads an authority.json and writes it.
func RewriteOrigin(data []byte) ([]byte, error) {
	o, err := parseOrigin(data)
	if err != nil {
		return nil, err
	}
	return o.encode()
}

// Due reports whether RenewIfDue renews a certificate at now.
func Due(leaf *x509.Certificate, now time.Time) bool {
	return (&identity{chain: []*x509.Certificate{leaf}}).due(now)
}

// KeyTypeOf is the type of the successor of key.
func KeyTypeOf(key crypto.PrivateKey) KeyType { return keyTypeOf(key.(crypto.Signer)) }

// ParseWatch reads an answer of GET /watch.
func ParseWatch(body []byte) (stepapi.WatchResponse, error) { return parseWatch(body) }

// BareAddress is what is reported of an address.
func BareAddress(address string) string { return bareAddress(address) }
