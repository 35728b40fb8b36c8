package enroll_test

import (
	"cmp"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/revocation"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// clock is that of the authority; the caller holds the lock.
func (a *authority) clock() func() time.Time {
	shift := a.shift
	return func() time.Time { return time.Now().Add(shift) }
}

func (a *authority) now() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.clock()()
}

// proven returns the certificate whose holder signed the request's token, or why not.
func (a *authority) proven(r *http.Request) (*x509.Certificate, string) {
	parts := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
	if len(parts) != 3 {
		return nil, "no client certificate"
	}
	var header struct {
		Alg   string   `json:"alg"`
		Chain [][]byte `json:"x5cInsecure"`
	}
	var claims struct {
		Iss, Sub, Aud, Jti string
		Nbf, Exp           int64
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	for i, into := range []any{&header, &claims} {
		b, bad := base64.RawURLEncoding.DecodeString(parts[i])
		if bad != nil || json.Unmarshal(b, into) != nil {
			return nil, "not a token"
		}
	}
	leaf, bad := x509.ParseCertificate(header.Chain[0])
	if err != nil || bad != nil || !signedES256(leaf, parts[0]+"."+parts[1], signature) {
		return nil, "the signature is wrong"
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock()()
	if d := now.Sub(time.Unix(claims.Nbf, 0)); d < -time.Minute || now.After(time.Unix(claims.Exp, 0).Add(time.Minute)) {
		return nil, fmt.Sprintf("the token is not for now (%v)", d)
	}
	if want := "https://" + a.host + r.URL.Path; claims.Aud != want || claims.Iss != "step-ca-client/1.0" || claims.Sub != leaf.Subject.CommonName {
		return nil, "the token is for " + claims.Aud
	}
	if a.proofs[claims.Jti] {
		return nil, "the token was used"
	}
	a.proofs[claims.Jti] = true
	pool, inter := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range a.roots {
		if a.clients == nil {
			pool.AddCert(root.Cert)
		}
	}
	for _, i := range append(a.retired, a.issuer) {
		inter.AddCert(i.Cert)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: inter, CurrentTime: leaf.NotAfter}); err != nil {
		return nil, "the certificate is of somebody else"
	}
	if over := now.Sub(leaf.NotAfter); over > a.grace {
		return nil, "the certificate expired too long ago"
	}
	return leaf, ""
}

func signedES256(leaf *x509.Certificate, text string, signature []byte) bool {
	if len(signature) != 64 {
		return false
	}
	der := ecdsaDER(new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	return leaf.CheckSignature(x509.ECDSAWithSHA256, []byte(text), der) == nil
}

// revoke puts a certificate on the list of its issuer.
func (a *authority) revoke(c *x509.Certificate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked = append(a.revoked, c)
}

// forget is what an authority does that has lost its record.
func (a *authority) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked = nil
}

// retire ends the lists of all issuers but the current one.
func (a *authority) retire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.retired = nil
}

// lists are as the authority makes them anew for each change.
func (a *authority) lists(r *http.Request) (int, any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stock {
		return http.StatusNotFound, stepapi.Error{Status: 404, Message: "no such route"}
	}
	var out stepapi.RevokedResponse
	for _, issuer := range append(a.retired, a.issuer) {
		list, err := a.list(issuer)
		if err != nil {
			return http.StatusInternalServerError, stepapi.Error{Status: 500, Message: err.Error()}
		}
		out.Lists = append(out.Lists, stepapi.RevokedList{
			Issuer: string(pemfile.EncodeCertificates([]*x509.Certificate{issuer.Cert})),
			CRL:    string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list})),
		})
	}
	tag := a.tagNow()
	if r.Header.Get("If-None-Match") == tag {
		return http.StatusNotModified, nil
	}
	return http.StatusOK, tagged{out, tag}
}

// tagNow is the ETag of the lists. a.mu is held.
func (a *authority) tagNow() string {
	return fmt.Sprintf(`"%d-%d-%v-%d"`, len(a.revoked), len(a.retired), a.forger != nil, a.clock()().Unix()/int64(listEvery/time.Second))
}

func (a *authority) listsTag() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tagNow()
}

type tagged struct {
	stepapi.RevokedResponse

	tag string
}

// listEvery is how often the authority signs lists anew.
const listEvery = 12 * time.Hour

func (a *authority) list(issuer *testpki.Pair) ([]byte, error) {
	now := a.clock()()
	l := &x509.RevocationList{Number: big.NewInt(now.UnixMicro()), ThisUpdate: now, NextUpdate: now.Add(cmp.Or(a.listLife, 24*time.Hour))}
	if a.listLife < 0 {
		l.ThisUpdate = now.Add(2 * a.listLife)
	}
	var ends []int64
	for _, c := range a.revoked {
		if c.CheckSignatureFrom(issuer.Cert) == nil {
			ends = append(ends, c.NotAfter.Unix())
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now})
		}
	}
	if len(ends) > 0 {
		value, err := revocation.EncodeEnds(now, ends)
		if err != nil {
			return nil, err
		}
		l.ExtraExtensions = []pkix.Extension{{Id: revocation.OIDEnds, Value: value}}
	}
	key := issuer.Key
	if a.forger != nil {
		key = a.forger.Key
	}
	return x509.CreateRevocationList(rand.Reader, l, issuer.Cert, key)
}

func ecdsaDER(r, s *big.Int) []byte {
	der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	if err != nil {
		panic(err) // two numbers always encode
	}
	return der
}
