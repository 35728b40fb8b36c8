package formats_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/agent/internal/formats"
	"github.com/artstore/artstore-pki/secret"
)

const password = "correct horse"

// fitting returns an identity whose key has a form of the kind. The key need not fit the
// certificate: no encoder compares them.
func fitting(t *testing.T, kind formats.Kind) rotation.Material {
	t.Helper()
	m := pkitest.NewCA(t).Leaf(t, "storage.example")
	if kind == formats.PKCS1 {
		m.Certificate.PrivateKey = rsaKey(t)
	}
	return m
}

// rsaKeys has two keys, which take long to make; rsaKey returns them in turn.
var (
	rsaKeys = sync.OnceValues(func() ([2]*rsa.PrivateKey, error) {
		one, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return [2]*rsa.PrivateKey{}, err
		}
		two, err := rsa.GenerateKey(rand.Reader, 2048)
		return [2]*rsa.PrivateKey{one, two}, err
	})
	rsaTurn atomic.Int64
)

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	both, err := rsaKeys()
	if err != nil {
		t.Fatal(err)
	}
	return both[rsaTurn.Add(1)%2]
}

func encode(t *testing.T, kind formats.Kind, m rotation.Material) []byte {
	t.Helper()
	data, err := formats.Format{Kind: kind, Password: secret.New(password)}.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDeterministic(t *testing.T) {
	for _, kind := range formats.Kinds() {
		m := fitting(t, kind)
		first := encode(t, kind, m)
		if !bytes.Equal(first, encode(t, kind, m)) {
			t.Errorf("%s: the same identity gives other bytes", kind)
		}
		if bytes.Equal(first, encode(t, kind, fitting(t, kind))) {
			t.Errorf("%s: another identity gives the same bytes", kind)
		}
		other, err := formats.Format{Kind: kind, Password: secret.New("another one")}.Encode(m)
		if err != nil || bytes.Equal(first, other) == kind.NeedsPassword() {
			t.Errorf("%s: another password: %v", kind, err)
		}
		if kind.HasKey() == strings.HasSuffix(string(kind), "-trust") {
			t.Errorf("%s: HasKey = %t", kind, kind.HasKey())
		}
	}
}

func sameKey(t *testing.T, got any, m rotation.Material) {
	t.Helper()
	key, ok := got.(interface{ Equal(crypto.PrivateKey) bool })
	if !ok || !key.Equal(m.Certificate.PrivateKey) {
		t.Errorf("another key: %T", got)
	}
}

func TestReadBack(t *testing.T) {
	for _, kind := range formats.Kinds() {
		m := fitting(t, kind)
		data := encode(t, kind, m)
		leaf := m.Certificate.Certificate[0]
		switch kind {
		case formats.CombinedPEM:
			chain, key, err := pemfile.Combined(data)
			if err != nil || !bytes.Equal(chain[0].Raw, leaf) || len(chain) != len(m.Certificate.Certificate) {
				t.Fatalf("%s: %v", kind, err)
			}
			sameKey(t, key, m)
		case formats.PKCS1, formats.SEC1:
			block, rest := pem.Decode(data)
			if block == nil || len(rest) > 0 || !strings.HasSuffix(block.Type, " PRIVATE KEY") {
				t.Fatalf("%s: %q", kind, data)
			}
			key, err := pemfile.PrivateKey(data)
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			sameKey(t, key, m)
		case formats.PKCS12:
			key, cert, more, err := pkcs12.DecodeChain(data, password)
			if err != nil || !bytes.Equal(cert.Raw, leaf) || len(more)+1 != len(m.Certificate.Certificate) {
				t.Fatalf("%s: %v", kind, err)
			}
			sameKey(t, key, m)
		case formats.PKCS12Trust:
			roots, err := pkcs12.DecodeTrustStore(data, password)
			if err != nil || len(roots) != len(m.Roots) || !roots[0].Equal(m.Roots[0]) {
				t.Fatalf("%s: %v", kind, err)
			}
		case formats.JKS:
			entry, err := load(t, data).GetPrivateKeyEntry("tls", []byte(password))
			if err != nil || !bytes.Equal(entry.CertificateChain[0].Content, leaf) {
				t.Fatalf("%s: %v", kind, err)
			}
			key, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey)
			if err != nil {
				t.Fatal(err)
			}
			sameKey(t, key, m)
		case formats.JKSTrust:
			entry, err := load(t, data).GetTrustedCertificateEntry("ca-1")
			if err != nil || !bytes.Equal(entry.Certificate.Content, m.Roots[0].Raw) {
				t.Fatalf("%s: %v", kind, err)
			}
		}
	}
}

func load(t *testing.T, data []byte) keystore.KeyStore {
	t.Helper()
	ks := keystore.New()
	if err := ks.Load(bytes.NewReader(data), []byte(password)); err != nil {
		t.Fatal(err)
	}
	return ks
}

func TestWrongKey(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := fitting(t, formats.SEC1)
	m.Certificate.PrivateKey = ed
	broken := fitting(t, formats.PKCS12)
	broken.Certificate.Certificate = [][]byte{{1}}
	keyless := fitting(t, formats.PKCS12)
	keyless.Certificate.PrivateKey = nil
	for name, c := range map[string]struct {
		format formats.Format
		m      rotation.Material
	}{
		"encoding sec1: only EC keys have this form":                {formats.Format{Kind: formats.SEC1}, m},
		"encoding pkcs1: only RSA keys have this form":              {formats.Format{Kind: formats.PKCS1}, m},
		"encoding pkcs12: no password":                              {formats.Format{Kind: formats.PKCS12}, m},
		"encoding jks: password must be at least 6 characters":      {formats.Format{Kind: formats.JKS, Password: secret.New("short")}, m},
		`encoding: "der" is no format`:                              {formats.Format{Kind: "der"}, m},
		"encoding combined-pem: parsing the chain: x509: malformed": {formats.Format{Kind: formats.CombinedPEM}, broken},
		"encoding pkcs12: parsing the chain: x509: malformed":       {formats.Format{Kind: formats.PKCS12, Password: secret.New(password)}, broken},
		"encoding jks: parsing the chain: x509: malformed":          {formats.Format{Kind: formats.JKS, Password: secret.New(password)}, broken},
		"encoding jks-trust: the private key has no PKCS #8 form":   {formats.Format{Kind: formats.JKSTrust, Password: secret.New(password)}, keyless},
	} {
		data, err := c.format.Encode(c.m)
		if err == nil || !strings.HasPrefix(err.Error(), name) || data != nil {
			t.Errorf("got %v, want %s", err, name)
		}
	}
	if formats.Kind("der").Known() || !formats.JKS.Known() || formats.JKS.DefaultFile() != "tls.jks" {
		t.Error("the kinds are mixed up")
	}
}

// written returns the path of a file with the encoded identity.
func written(t *testing.T, kind formats.Kind, m rotation.Material) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), kind.DefaultFile())
	if err := os.WriteFile(path, encode(t, kind, m), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// program runs a judge that is not ours, and returns what it prints.
func program(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestOpenSSL(t *testing.T) {
	m := fitting(t, formats.PKCS12)
	if out := program(t, "openssl", "pkcs12", "-in", written(t, formats.PKCS12, m), "-passin", "pass:"+password, "-nodes"); strings.Count(out, "BEGIN CERTIFICATE") != len(m.Certificate.Certificate) || !strings.Contains(out, "BEGIN PRIVATE KEY") {
		t.Errorf("openssl pkcs12 read:\n%s", out)
	}
	program(t, "openssl", "ec", "-in", written(t, formats.SEC1, m), "-noout", "-check")
	program(t, "openssl", "rsa", "-in", written(t, formats.PKCS1, fitting(t, formats.PKCS1)), "-noout", "-check")
}

func TestKeytool(t *testing.T) {
	m := fitting(t, formats.JKS)
	for _, kind := range []formats.Kind{formats.PKCS12, formats.PKCS12Trust, formats.JKS, formats.JKSTrust} {
		out := program(t, "keytool", "-list", "-keystore", written(t, kind, m), "-storepass", password)
		want := "trustedCertEntry"
		if kind.HasKey() {
			want = "PrivateKeyEntry"
		}
		if !strings.Contains(out, want) {
			t.Errorf("%s: no %s:\n%s", kind, want, out)
		}
	}
}
