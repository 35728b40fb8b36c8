package audit_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	_ "crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// pki makes certificates for the tables of verdicts. Unlike certtest.New it writes the
// bytes that are signed itself, so that it can make certificates that crypto/x509 does
// not.
type pki struct{ testing.TB }

// certified is a certificate with the private key that belongs to it.
type certified struct {
	der   []byte
	key   crypto.Signer
	name  []byte // the subject in DER
	keyID []byte // subject key identifier; nil for none
}

// certPlan is what a certificate is made from: the template first, then edits of the
// bytes that are signed.
type certPlan struct {
	*x509.Certificate
	key     crypto.Signer // its own; nil: a new one on P-256
	edits   []func(*tbsCertificate)
	signing signing // zero: SHA-256 with the issuer's key
	damage  bool    // of the signature
}

// tbsCertificate is the TBSCertificate of RFC 5280 §4.1.
type tbsCertificate struct {
	Version    int `asn1:"optional,explicit,default:0,tag:0"`
	Serial     asn1.RawValue
	Algorithm  asn1.RawValue
	Issuer     asn1.RawValue
	Validity   struct{ From, Until asn1.RawValue }
	Subject    asn1.RawValue
	Key        asn1.RawValue
	Extensions []pkix.Extension `asn1:"omitempty,optional,explicit,tag:3"`
}

type option func(*certPlan)

// with applies a spec of package certtest.
func with(s certtest.Spec) option { return func(r *certPlan) { s(r.Certificate) } }

func edit(e func(*tbsCertificate)) option {
	return func(r *certPlan) { r.edits = append(r.edits, e) }
}

// valid moves the dates: from and until are distances from now.
func valid(from, until time.Duration) option {
	now := time.Now().Truncate(time.Second)
	return with(certtest.Dates(now.Add(from), now.Add(until)))
}

func expiredOnce() option        { return valid(-40*certtest.Day, -10*certtest.Day) }
func notYet() option             { return valid(10*certtest.Day, 400*certtest.Day) }
func dns(names ...string) option { return with(certtest.Named(names...)) }
func keyUses(u x509.KeyUsage) option {
	return func(r *certPlan) { r.KeyUsage = u }
}

func usages(list ...x509.ExtKeyUsage) option {
	return func(r *certPlan) { r.ExtKeyUsage = list }
}
func withKey(k crypto.Signer) option       { return func(r *certPlan) { r.key = k } }
func verifyListSignature(s signing) option { return func(r *certPlan) { r.signing = s } }
func damaged(r *certPlan)                  { r.damage = true }
func pathLength(n int) option {
	return func(r *certPlan) { r.MaxPathLen, r.MaxPathLenZero = n, n == 0 }
}
func notCA(r *certPlan) { r.IsCA = false }
func noKeyIDs() option {
	return func(r *certPlan) { dropExtension(oidSubjectKeyID)(r); dropExtension(oidAuthorityKeyID)(r) }
}
func atVersion(n int) option { return edit(func(t *tbsCertificate) { t.Version = n - 1 }) }

var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidAltName          = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidPolicyLimits     = asn1.ObjectIdentifier{2, 5, 29, 36}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidNetscapeType     = asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 1}
	oidDelta            = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingPoint     = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidPrivate          = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}
)

// extension adds an extension, in place of one with the same identifier.
func extension(id asn1.ObjectIdentifier, critical bool, der ...byte) option {
	return func(r *certPlan) {
		dropExtension(id)(r)
		edit(func(t *tbsCertificate) {
			t.Extensions = append(t.Extensions, pkix.Extension{Id: id, Critical: critical, Value: der})
		})(r)
	}
}

func dropExtension(id asn1.ObjectIdentifier) option {
	return edit(func(t *tbsCertificate) {
		var kept []pkix.Extension
		for _, e := range t.Extensions {
			if !e.Id.Equal(id) {
				kept = append(kept, e)
			}
		}
		t.Extensions = kept
	})
}

// raw is DER with a tag of the universal class.
func raw(tag int, content ...byte) asn1.RawValue {
	return asn1.RawValue{Tag: tag, IsCompound: tag == asn1.TagSequence || tag == asn1.TagSet, Bytes: content}
}

func (p pki) der(v any) []byte {
	p.Helper()
	out, err := asn1.Marshal(v)
	certtest.Must(p, err)
	return out
}

// root makes a self-signed authority.
func (p pki) root(name string, options ...option) *certified {
	p.Helper()
	return p.ca(nil, name, options...)
}

// ca makes an authority under issuer.
func (p pki) ca(issuer *certified, name string, options ...option) *certified {
	p.Helper()
	return p.issue(issuer, name, append([]option{with(certtest.Authority)}, options...)...)
}

// leaf makes a certificate for server and client with the DNS name server.test.
func (p pki) leaf(issuer *certified, options ...option) *certified {
	p.Helper()
	return p.issue(issuer, "leaf", append([]option{dns("server.test"), keyUses(x509.KeyUsageDigitalSignature)}, options...)...)
}

func (p pki) issue(issuer *certified, name string, options ...option) *certified {
	p.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	certtest.Must(p, err)
	now := time.Now().Truncate(time.Second)
	r := &certPlan{Certificate: &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(365 * certtest.Day),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}}
	for _, o := range options {
		o(r)
	}
	if r.key == nil {
		r.key = p.newKey()
	}
	return p.sign(issuer, r)
}

func (p pki) newKey() crypto.Signer {
	p.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	certtest.Must(p, err)
	return key
}

// scratch is a key for certificates that are signed again after the edits.
var scratch = sync.OnceValue(func() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

func (p pki) sign(issuer *certified, r *certPlan) *certified {
	p.Helper()
	out := &certified{key: r.key}
	parent := &x509.Certificate{Subject: r.Subject, RawSubject: r.RawSubject}
	signer := r.key
	if issuer != nil {
		parent, signer = &x509.Certificate{RawSubject: issuer.name, SubjectKeyId: issuer.keyID}, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, r.Certificate, parent, r.key.Public(), scratch())
	certtest.Must(p, err)
	made, err := x509.ParseCertificate(der)
	certtest.Must(p, err)
	var tbs tbsCertificate
	_, err = asn1.Unmarshal(made.RawTBSCertificate, &tbs)
	certtest.Must(p, err)
	algorithm, sign := p.signer(signer, r.signing)
	tbs.Algorithm = asn1.RawValue{FullBytes: algorithm}
	for _, e := range r.edits {
		e(&tbs)
	}
	out.name, out.keyID = p.der(tbs.Subject), keyIDOf(tbs.Extensions)
	if len(tbs.Extensions) == 0 {
		tbs.Extensions = nil
	}
	signed := p.der(tbs)
	signature := sign(signed)
	if r.damage {
		signature[len(signature)-1] ^= 1
	}
	out.der = p.der(struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}{asn1.RawValue{FullBytes: signed}, asn1.RawValue{FullBytes: algorithm}, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	return out
}

func keyIDOf(list []pkix.Extension) (id []byte) {
	for _, e := range list {
		if e.Id.Equal(oidSubjectKeyID) {
			_, _ = asn1.Unmarshal(e.Value, &id) // one that is damaged on purpose names nothing
		}
	}
	return id
}

// signing is a hash and the identifiers of its signatures (RFC 8017, RFC 5758).
type signing struct {
	hash       crypto.Hash
	rsa, ecdsa asn1.ObjectIdentifier
}

var (
	withSHA256 = signing{crypto.SHA256, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	withSHA1   = signing{crypto.SHA1, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}}
	withSHA224 = signing{crypto.SHA224, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 14}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 1}}
	withSHA512 = signing{crypto.SHA512, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}}
	withMD5    = signing{crypto.MD5, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}, nil}
)

// signer returns the AlgorithmIdentifier of signatures by key, and what makes them.
func (p pki) signer(key crypto.Signer, s signing) (algorithm []byte, sign func([]byte) []byte) {
	p.Helper()
	if s.hash == 0 {
		s = withSHA256
	}
	id := pkix.AlgorithmIdentifier{Algorithm: s.ecdsa}
	if _, ok := key.(*rsa.PrivateKey); ok {
		id = pkix.AlgorithmIdentifier{Algorithm: s.rsa, Parameters: asn1.NullRawValue}
	}
	return p.der(id), func(data []byte) []byte {
		p.Helper()
		out, err := key.Sign(rand.Reader, digest(s.hash, data), s.hash)
		certtest.Must(p, err)
		return out
	}
}

func digest(h crypto.Hash, data []byte) []byte {
	d := h.New()
	_, _ = d.Write(data) // never fails
	return d.Sum(nil)
}

// rsaKeys are made once: each takes a good part of a second.
var rsaKeys = map[int]func() crypto.Signer{1024: rsaKey(1024), 2048: rsaKey(2048)}

func rsaKey(bits int) func() crypto.Signer {
	return sync.OnceValue(func() crypto.Signer {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		return key
	})
}

func (c *certified) keyPEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	certtest.Must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func pemRenderer(list ...*certified) (out []byte) {
	for _, c := range list {
		out = append(out, certtest.Block("CERTIFICATE", c.der)...)
	}
	return out
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	certtest.Must(t, os.WriteFile(path, data, 0o600))
}
