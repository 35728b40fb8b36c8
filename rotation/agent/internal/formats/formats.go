// Package formats encodes an identity in the forms that programs other than ours read, beside the
// PEM files that rotation/enroll writes.
//
//	data, err := formats.Format{Kind: formats.PKCS12, Password: password}.Encode(m)
//
// Invariants:
//
//   - The same identity gives the same bytes (TestDeterministic). Programs that compare files
//     would otherwise restart for nothing, and a check whether files are up to date would have
//     to decrypt them.
//   - What is encoded is read back by the parsers of other programs as the same key and
//     certificates (TestReadBack, TestOpenSSL, TestKeytool).
//   - A key that a format has no form for is an error, and no file (TestWrongKey).
package formats

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/secret"
)

// Kind is a form of an identity.
type Kind string

// The kinds.
const (
	CombinedPEM Kind = "combined-pem" // key (PKCS #8), leaf and chain in one file, as HAProxy and MongoDB read it
	PKCS1       Kind = "pkcs1"        // the RSA key as RSA PRIVATE KEY (RFC 8017)
	SEC1        Kind = "sec1"         // the EC key as EC PRIVATE KEY (RFC 5915)
	PKCS12      Kind = "pkcs12"       // key, leaf and chain (RFC 7292), AES-256 and PBKDF2
	PKCS12Trust Kind = "pkcs12-trust" // the trust bundle, as a trust store of Java
	JKS         Kind = "jks"          // key, leaf and chain for Java 8 and older
	JKSTrust    Kind = "jks-trust"    // the trust bundle for Java 8 and older
)

// traits are what the kinds differ in.
type traits struct {
	file     string // default name
	password bool
	secret   bool // has the key
	encode   func(Format, rotation.Material, io.Reader) ([]byte, error)
}

var kinds = map[Kind]traits{
	CombinedPEM: {"tls.pem", false, true, Format.combined},
	PKCS1:       {"tls.pkcs1.key", false, true, Format.pkcs1},
	SEC1:        {"tls.sec1.key", false, true, Format.sec1},
	PKCS12:      {"tls.p12", true, true, Format.pkcs12},
	PKCS12Trust: {"ca.p12", true, false, Format.pkcs12Trust},
	JKS:         {"tls.jks", true, true, Format.jks},
	JKSTrust:    {"ca.jks", true, false, Format.jksTrust},
}

// Kinds returns all kinds, sorted.
func Kinds() []Kind {
	out := make([]Kind, 0, len(kinds))
	for k := range kinds {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Known reports whether k is a kind.
func (k Kind) Known() bool { _, ok := kinds[k]; return ok }

// DefaultFile returns the usual name of a file of this kind.
func (k Kind) DefaultFile() string { return kinds[k].file }

// NeedsPassword reports whether a file of this kind is encrypted.
func (k Kind) NeedsPassword() bool { return kinds[k].password }

// HasKey reports whether a file of this kind has the private key.
func (k Kind) HasKey() bool { return kinds[k].secret }

// alias is the name of the key in stores of Java. The roots are ca-1, ca-2 and so on.
const alias = "tls"

// Format is one file.
type Format struct {
	Kind     Kind
	Password secret.String // of PKCS #12 and Java stores
}

// Encode returns the content of the file. m must have a key, a leaf and roots.
func (f Format) Encode(m rotation.Material) ([]byte, error) {
	kind, known := kinds[f.Kind]
	if !known {
		return nil, fmt.Errorf("encoding: %q is no format", f.Kind)
	}
	if kind.password && f.Password.IsZero() {
		return nil, fmt.Errorf("encoding %s: no password", f.Kind)
	}
	random, err := f.random(m)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", f.Kind, err)
	}
	data, err := kind.encode(f, m, random)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", f.Kind, err)
	}
	return data, nil
}

// randomLength is more than the salts and IVs of a file, in bytes. Each encrypted part takes 16 or
// 32 of them.
const randomLength = 4 << 10

// random returns the bytes of which salts and IVs are made. They are derived from the private key
// by HKDF (RFC 5869), with all that is encoded as the info: who does not have the key cannot
// predict them, and another content or password gets others.
func (f Format) random(m rotation.Material) (io.Reader, error) {
	der, err := x509.MarshalPKCS8PrivateKey(m.Certificate.PrivateKey)
	if err != nil {
		return nil, errors.New("the private key has no PKCS #8 form")
	}
	content := sha256.New()
	field := func(b []byte) { _, _ = fmt.Fprintf(content, "%d:%s", len(b), b) } // a hash takes every write
	field([]byte(f.Kind))
	field([]byte(f.Password.Expose()))
	for _, c := range m.Certificate.Certificate {
		field(c)
	}
	field(nil)
	for _, r := range m.Roots {
		field(r.Raw)
	}
	out, err := hkdf.Key(sha256.New, der, nil, "artstore-pki agent salts\x00"+string(content.Sum(nil)), randomLength)
	return bytes.NewReader(out), err
}

func (f Format) combined(m rotation.Material, _ io.Reader) ([]byte, error) {
	key, err := pemfile.EncodePrivateKey(signer(m))
	if err != nil {
		return nil, err
	}
	chain, err := chainOf(m)
	return append(key, pemfile.EncodeCertificates(chain)...), err
}

func (f Format) pkcs1(m rotation.Material, _ io.Reader) ([]byte, error) {
	key, ok := m.Certificate.PrivateKey.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("only RSA keys have this form")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), nil
}

func (f Format) sec1(m rotation.Material, _ io.Reader) ([]byte, error) {
	key, ok := m.Certificate.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("only EC keys have this form")
	}
	der, err := x509.MarshalECPrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}

func (f Format) pkcs12(m rotation.Material, random io.Reader) ([]byte, error) {
	chain, err := chainOf(m)
	if err != nil {
		return nil, err
	}
	return pkcs12.Modern2023.WithRand(random).Encode(m.Certificate.PrivateKey, chain[0], chain[1:], f.Password.Expose())
}

func (f Format) pkcs12Trust(m rotation.Material, random io.Reader) ([]byte, error) {
	entries := make([]pkcs12.TrustStoreEntry, len(m.Roots))
	for i, r := range m.Roots {
		entries[i] = pkcs12.TrustStoreEntry{Cert: r, FriendlyName: rootAlias(i)}
	}
	return pkcs12.Modern2023.WithRand(random).EncodeTrustStoreEntries(entries, f.Password.Expose())
}

func rootAlias(i int) string { return fmt.Sprintf("ca-%d", i+1) }

// store returns an empty Java store, which takes passwords of six characters and more, as
// keytool does.
func store(random io.Reader) keystore.KeyStore {
	return keystore.New(keystore.WithOrderedAliases(), keystore.WithMinPasswordLen(minJavaPassword), keystore.WithCustomRandomNumberGenerator(random))
}

const minJavaPassword = 6

func (f Format) jks(m rotation.Material, random io.Reader) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(m.Certificate.PrivateKey)
	if err != nil {
		return nil, err
	}
	chain, err := chainOf(m)
	if err != nil {
		return nil, err
	}
	entry := keystore.PrivateKeyEntry{CreationTime: chain[0].NotBefore, PrivateKey: der}
	for _, c := range chain {
		entry.CertificateChain = append(entry.CertificateChain, javaCertificate(c))
	}
	ks := store(random)
	if err := ks.SetPrivateKeyEntry(alias, entry, []byte(f.Password.Expose())); err != nil {
		return nil, err
	}
	return f.finish(ks)
}

func (f Format) jksTrust(m rotation.Material, random io.Reader) ([]byte, error) {
	ks := store(random)
	for i, r := range m.Roots {
		entry := keystore.TrustedCertificateEntry{CreationTime: r.NotBefore, Certificate: javaCertificate(r)}
		if err := ks.SetTrustedCertificateEntry(rootAlias(i), entry); err != nil {
			return nil, err
		}
	}
	return f.finish(ks)
}

func (f Format) finish(ks keystore.KeyStore) ([]byte, error) {
	var out bytes.Buffer
	err := ks.Store(&out, []byte(f.Password.Expose()))
	return out.Bytes(), err
}

func javaCertificate(c *x509.Certificate) keystore.Certificate {
	return keystore.Certificate{Type: "X.509", Content: c.Raw}
}

func signer(m rotation.Material) crypto.Signer {
	key, _ := m.Certificate.PrivateKey.(crypto.Signer) // pemfile refuses nil
	return key
}

func chainOf(m rotation.Material) ([]*x509.Certificate, error) {
	chain := make([]*x509.Certificate, len(m.Certificate.Certificate))
	for i, der := range m.Certificate.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parsing the chain: %w", err)
		}
		chain[i] = c
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate")
	}
	return chain, nil
}
