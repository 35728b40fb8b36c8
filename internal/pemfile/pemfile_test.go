package pemfile_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/testpki"
)

func newKey(t testing.TB) *ecdsa.PrivateKey { t.Helper(); return testpki.Key(t) }

func newCert(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	return testpki.Issue(t, nil, &x509.Certificate{Subject: pkix.Name{CommonName: "c"}}, key).Cert
}

func encodeKey(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	b, err := pemfile.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// noKey is a signer, as of a token that was removed, without a public key.
type noKey struct{ crypto.Signer }

func (noKey) Public() crypto.PublicKey { return (*ecdsa.PublicKey)(nil) }

func TestEncodePrivateKeyRefusesUnknown(t *testing.T) {
	if _, err := pemfile.EncodePrivateKey(noKey{}); err == nil {
		t.Error("an unknown kind of key was encoded")
	}
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestCertificates(t *testing.T) {
	key := newKey(t)
	a, b := newCert(t, key), newCert(t, newKey(t))
	one, two := pemfile.EncodeCertificates([]*x509.Certificate{a}), pemfile.EncodeCertificates([]*x509.Certificate{a, b})
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{1}})
	for name, c := range map[string]struct {
		in   []byte
		n    int
		want string
	}{
		"one":                {one, 1, ""},
		"two":                {two, 2, ""},
		"comment before":     {join([]byte("subject=c\n"), one), 1, ""},
		"ruled comment":      {join([]byte("# ----- leaf -----\n"), one, []byte("# ----- intermediate -----\n-----\n"), one), 2, ""},
		"indented block":     {join([]byte(" -----BEGIN CERTIFICATE-----\n"), one), 0, "damaged PEM before block 1"},
		"byte order mark":    {join([]byte("\ufeff"), two), 0, "damaged PEM before block 1"},
		"end without begin":  {join([]byte("MIIB\n-----END CERTIFICATE-----\n"), one), 0, "damaged PEM before block 1"},
		"end of a Mac":       {join([]byte("x\r-----BEGIN CERTIFICATE-----\r"), one), 0, "damaged PEM before block 1"},
		"comment between":    {join(one, []byte("\nissuer=c\n"), one), 2, ""},
		"white space after":  {join(one, []byte(" \r\n\n")), 1, ""},
		"empty":              {nil, 0, "no PEM block"},
		"text only":          {[]byte("hello"), 0, "5 bytes that are not PEM"},
		"text after":         {join(one, []byte("hello")), 0, "not PEM after block 1"},
		"cut":                {two[:len(two)-30], 0, "damaged PEM before block 2"},
		"cut in the marker":  {two[:len(two)-3], 0, "damaged PEM"},
		"first block cut":    {join(one[:100], one), 0, "damaged PEM before block 1"},
		"first damaged":      {join(bytes.Replace(one, []byte("M"), []byte("!"), 1), one), 0, "damaged PEM before block 1"},
		"key among them":     {join(one, encodeKey(t, key)), 0, "private key among certificates"},
		"key parameters":     {join(one, pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 1, 1}})), 0, "private key among certificates"},
		"other type":         {join(one, csr), 0, `unexpected PEM type "CERTIFICATE REQUEST"`},
		"list among them":    {join(one, newList(t)), 0, "revocation list among certificates"},
		"zero bytes before":  {join(make([]byte, 9), []byte("\n"), one), 0, "zero bytes before block 1"},
		"zero bytes after":   {join(one, make([]byte, 9)), 0, "9 bytes that are not PEM"},
		"headers":            {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"a": "b"}, Bytes: a.Raw}), 0, "PEM headers in block 1"},
		"DER trailing":       {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: join(a.Raw, []byte{0})}), 0, "1 bytes after the DER value in block 1"},
		"garbage in a block": {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2}}), 0, "parsing certificate in block 1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := pemfile.Certificates(c.in)
			if c.want == "" && (err != nil || len(got) != c.n) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%d certificates, %v; want %d, %q", len(got), err, c.n, c.want)
			}
			if err == nil && !got[0].Equal(a) {
				t.Error("order of the file not kept")
			}
		})
	}
	if _, err := pemfile.Certificates(nil); !errors.Is(err, pemfile.ErrNoBlock) {
		t.Errorf("empty: %v, want ErrNoBlock", err)
	}
}

func TestPrivateKey(t *testing.T) {
	ec := newKey(t)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	sec1PEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})
	for name, c := range map[string]struct {
		in  []byte
		key crypto.Signer
	}{
		"PKCS#8 EC":        {encodeKey(t, ec), ec},
		"PKCS#8 RSA":       {encodeKey(t, rs), rs},
		"PKCS#8 Ed25519":   {encodeKey(t, ed), ed},
		"SEC 1":            {sec1PEM, ec},
		"openssl ecparam":  {join(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 1, 1}}), sec1PEM), ec},
		"PKCS#8 as PKCS#1": {relabel(encodeKey(t, rs), "RSA PRIVATE KEY"), rs},
		"PKCS#8 as SEC 1":  {relabel(encodeKey(t, ec), "EC PRIVATE KEY"), ec},
		"SEC 1 as PKCS#8":  {relabel(sec1PEM, "PRIVATE KEY"), ec},
		"PKCS#1 as SEC 1":  {pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rs)}), rs},
		"PKCS#1":           {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rs)}), rs},
	} {
		got, err := pemfile.PrivateKey(c.in)
		if err != nil || !certs.Fits(newCert(t, c.key), got) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dh, err := ecdhKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for want, in := range map[string][]byte{
		"want PRIVATE KEY":                 nil,
		"certificate in a key file":        join(encodeKey(t, ec), pemfile.EncodeCertificates([]*x509.Certificate{newCert(t, ec)})),
		"second private key in block 2":    join(encodeKey(t, ec), encodeKey(t, rs)),
		"damaged or of an":                 pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("s3cret-scalar")}),
		"cannot sign":                      dh,
		"it is an encrypted private key":   pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}}),
		"the format of OpenSSH":            pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte{1}}),
		"in block 1: it is in the format":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("openssh-key-v1\x00...")}),
		"in block 1: it is encrypted":      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: append([]byte{0x30, 9, 0x30, 4, 6, 2, 42, 3, 4, 1}, 0)}),
		"it is a public key":               pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}),
		"in block 1: it is a public key":   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: publicDER(t, ec)}),
		"block 1: it is a public key":      pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PublicKey(&rs.PublicKey)}),
		"in block 1: it is a certificate":  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: newCert(t, ec).Raw}),
		"it is a request":                  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{1}}),
		"PEM headers in block 1":           pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: sec1}),
		"2 bytes after the DER value":      pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: join(sec1, []byte{1, 2})}),
		"revocation list in a key file":    join(encodeKey(t, ec), newList(t)),
		"damaged PEM before block 1":       encodeKey(t, ec)[:80],
		"bytes that are not PEM after blo": join(encodeKey(t, ec), []byte("x")),
	} {
		if _, err := pemfile.PrivateKey(in); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func publicDER(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// relabel puts a label on a key that is not that of its encoding.
func relabel(data []byte, label string) []byte {
	block, _ := pem.Decode(data)
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: block.Bytes})
}

// ecdhKey is an X25519 key in PKCS#8: a private key that agrees and does not sign.
func ecdhKey(*ecdsa.PrivateKey) ([]byte, error) {
	der := append([]byte{0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20}, bytes.Repeat([]byte{9}, 32)...)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func TestCombined(t *testing.T) {
	key := newKey(t)
	cert, k := pemfile.EncodeCertificates([]*x509.Certificate{newCert(t, key)}), encodeKey(t, key)
	for _, in := range [][]byte{join(cert, k), join(k, cert), join(k, cert, cert)} {
		chain, got, err := pemfile.Combined(in)
		if err != nil || !certs.Fits(chain[0], got) {
			t.Errorf("Combined: %v", err)
		}
	}
	for _, in := range [][]byte{cert, k, nil, join(k, cert, []byte("x")), join(k, cert, newList(t))} {
		if _, _, err := pemfile.Combined(in); err == nil {
			t.Error("half a set was accepted")
		}
	}
}

// newList is a list of one revoked serial, in PEM.
func newList(t testing.TB) []byte {
	t.Helper()
	key := newKey(t)
	issuer := newCert(t, key)
	issuer.KeyUsage, issuer.SubjectKeyId = x509.KeyUsageCRLSign, []byte{1}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(42), RevocationTime: time.Now()}},
	}, issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return pemfile.EncodeRevocationLists([]*x509.RevocationList{l})
}

func TestRevocationLists(t *testing.T) {
	one, two := newList(t), newList(t)
	cert := pemfile.EncodeCertificates([]*x509.Certificate{newCert(t, newKey(t))})
	block, _ := pem.Decode(one)
	for name, c := range map[string]struct {
		in            []byte
		lists, issuer int
		want          string
	}{
		"one":          {one, 1, 0, ""},
		"two":          {join(one, two), 2, 0, ""},
		"with issuer":  {join(cert, one, cert, two), 2, 2, ""},
		"empty":        {nil, 0, 0, "want X509 CRL"},
		"only issuer":  {cert, 0, 0, "want X509 CRL"},
		"key":          {join(one, encodeKey(t, newKey(t))), 0, 0, "private key among revocation lists"},
		"cut":          {join(one, two)[:len(one)+40], 0, 0, "damaged PEM before block 2"},
		"garbage":      {pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte{0x30, 0}}), 0, 0, "parsing revocation list in block 1"},
		"DER trailing": {pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: join(block.Bytes, []byte{5, 0})}), 0, 0, "2 bytes after the DER value"},
	} {
		lists, issuers, err := pemfile.RevocationLists(c.in)
		if c.want == "" && (err != nil || len(lists) != c.lists || len(issuers) != c.issuer) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %d lists, %d issuers, %v; want %d, %d, %q", name, len(lists), len(issuers), err, c.lists, c.issuer, c.want)
		}
	}
}

// begins counts the lines that begin a block.
func begins(in []byte) (n int) {
	for line := range bytes.FieldsFuncSeq(in, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if bytes.HasPrefix(bytes.TrimSpace(line), []byte("-----BEGIN")) {
			n++
		}
	}
	return n
}

// FuzzCertificates: any input is either refused, or read completely: encoding
// what was read and reading it again gives the same certificates, and no more
// BEGIN lines were there than certificates came out.
func FuzzCertificates(f *testing.F) {
	one := pemfile.EncodeCertificates([]*x509.Certificate{newCert(f, newKey(f))})
	f.Add(one)
	f.Add(join(one, one))
	f.Add(one[:len(one)-30])
	f.Add(join([]byte("comment\n"), one, []byte("tail")))
	f.Add(join([]byte("# ----- leaf -----\n"), one, []byte("# ----- issuer -----\n"), one))
	f.Fuzz(func(t *testing.T, in []byte) {
		certs, err := pemfile.Certificates(in)
		if err != nil {
			return
		}
		again, err := pemfile.Certificates(pemfile.EncodeCertificates(certs))
		if err != nil || len(again) != len(certs) || len(certs) == 0 {
			t.Fatalf("%d certificates became %d: %v", len(certs), len(again), err)
		}
		for i := range certs {
			if !certs[i].Equal(again[i]) {
				t.Errorf("certificate %d changed", i)
			}
		}
		if n := begins(in); n != len(certs) {
			t.Errorf("%d blocks, %d certificates", n, len(certs))
		}
	})
}

// FuzzPrivateKey: any input is either refused by an error without the input's
// bytes, or a key that survives encoding.
func FuzzPrivateKey(f *testing.F) {
	key := newKey(f)
	f.Add(encodeKey(f, key))
	f.Add(encodeKey(f, key)[:60])
	f.Add(join(encodeKey(f, key), encodeKey(f, key)))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		k, err := pemfile.PrivateKey(in)
		if err != nil {
			for line := range bytes.Lines(in) {
				if line = bytes.TrimSpace(line); len(line) >= 32 && !bytes.Contains(line, []byte("-----")) && strings.Contains(err.Error(), string(line)) {
					t.Errorf("the error quotes the input: %v", err)
				}
			}
			return
		}
		out, err := pemfile.EncodePrivateKey(k)
		if err != nil {
			t.Fatalf("encoding: %v", err)
		}
		again, err := pemfile.PrivateKey(out)
		if err != nil {
			t.Fatalf("reading again: %v", err)
		}
		if pub, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(again.Public()) {
			t.Error("the key changed")
		}
	})
}

// FuzzRevocationLists: any input is either refused, or every block in it came
// out, and no DER value was followed by anything.
func FuzzRevocationLists(f *testing.F) {
	one, cert := newList(f), pemfile.EncodeCertificates([]*x509.Certificate{newCert(f, newKey(f))})
	f.Add(one)
	f.Add(join(cert, one, one))
	f.Add(join(one, one)[:len(one)+50])
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte{0x30, 0, 0}}))
	f.Fuzz(func(t *testing.T, in []byte) {
		lists, issuers, err := pemfile.RevocationLists(in)
		if err != nil {
			return
		}
		if n := begins(in); n != len(lists)+len(issuers) {
			t.Errorf("%d blocks, %d lists, %d issuers", n, len(lists), len(issuers))
		}
		again, _, err := pemfile.RevocationLists(pemfile.EncodeRevocationLists(lists))
		if err != nil || len(again) != len(lists) {
			t.Fatalf("%d lists became %d: %v", len(lists), len(again), err)
		}
		for i := range lists {
			if !bytes.Equal(lists[i].Raw, again[i].Raw) {
				t.Errorf("list %d changed", i)
			}
		}
	})
}
