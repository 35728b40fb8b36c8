package arch_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/arch"
)

// TestNothingSecretIsTracked is the guard itself.
func TestNothingSecretIsTracked(t *testing.T) {
	findings, err := arch.ScanTree(t.Context(), root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Error(f)
	}
}

// material makes what a careless commit would hold, fresh each time: this file
// is scanned as well.
func material(t *testing.T) map[string][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	sec1, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "planted"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: tmpl.Subject}, key)
	must(t, err)
	d, err := key.Bytes()
	must(t, err)
	jwk, err := json.Marshal(map[string]string{"kty": "EC", "crv": "P-256", "d": base64.RawURLEncoding.EncodeToString(d)})
	must(t, err)
	b64 := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	token := b64(`{"alg":"ES256","typ":"JWT"}`) + "." + b64(`{"sub":"ingester","exp":1}`) + "." + b64(strings.Repeat("s", 64))
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	withHeaders := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1,
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}})
	return map[string][]byte{
		"key.txt":        pemKey,
		"old-key.txt":    withHeaders,
		"encrypted.yaml": append([]byte("key: |\n  "), bytes.ReplaceAll(encryptedLike(pkcs8), []byte("\n"), []byte("\n  "))...),
		"chain.txt":      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		"request.txt":    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}),
		"const.go":       []byte("package p\n\nconst k = " + strconv.Quote(string(pemKey)) + "\n"),
		"lines.go":       []byte("package p\n\nconst k = \"" + strings.ReplaceAll(string(pemKey), "\n", "\\n\" +\n\t\"") + "\"\n"),
		"jwk.json":       jwk,
		"jwk.go":         []byte("package p\n\nconst k = " + strconv.Quote(string(jwk)) + "\n"),
		"README.md":      []byte("curl -H 'Authorization: Bearer " + token + "'\n"),
		"accounts.json":  []byte(`{"hash":"$2b$12$` + strings.Repeat("a", 53) + `"}`),
		"cert.bin":       cert,
		"pkcs8.bin":      pkcs8,
		"sec1.bin":       sec1,
		"tls.key":        nil,
		"certs/CA.PEM":   nil,
		"bundle.p12":     nil,
		".env":           nil,
		"x/secrets.env":  nil,
		"a/id_ed25519":   nil,
		"state/password": nil,
	}
}

func encryptedLike(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})
}

func TestPlantedSecretIsFound(t *testing.T) {
	for name, content := range material(t) {
		got := arch.Scan(name, content)
		if len(got) == 0 {
			t.Errorf("%s: nothing found", name)
		}
		for _, f := range got {
			if f.Path != name || len(content) > 0 && strings.Contains(f.String(), string(content)) {
				t.Errorf("%s: the finding is %q", name, f)
			}
		}
	}
}

func TestCodeAboutSecretsIsClean(t *testing.T) {
	for name, content := range map[string]string{
		"parse.go":    `case "-----BEGIN PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----": // what pem.Decode looks for`,
		"fuzz.go":     "f.Add([]byte(\"-----BEGIN CERTIFICATE-----\\nnot base64 at all\\n-----END CERTIFICATE-----\\n\"))",
		"jwk.go":      `D string ` + "`json:\"d,omitempty\"`",
		"public.json": `{"kty":"EC","x":"` + strings.Repeat("A", 43) + `"}`,
		"go.sum":      "example.com/m v1.0.0 h1:" + strings.Repeat("A", 43) + "=",
		"doc.md":      "tokens look like eyJhbGciOi… and end after minutes",
		"keys.go":     "package keys",
		"token.txtar": "! stdout eyJ",
		"empty":       "",
		"seq.bin":     "0\x82",
	} {
		if got := arch.Scan(name, []byte(content)); len(got) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFindingSaysWhere(t *testing.T) {
	key := material(t)["key.txt"]
	got := arch.Scan("a.go", append([]byte("one\ntwo\n"), key...))
	if len(got) != 1 || got[0].String() != "a.go:3: a private key in PEM" {
		t.Errorf("got %v", got)
	}
}

// TestScanTree plants a key in a real work tree: tracked, about to be tracked,
// ignored, removed, behind a link; and once where there is no git.
func TestScanTree(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git to make a work tree with; .ci/run installs it")
	}
	key := string(material(t)["key.txt"])
	dir := t.TempDir()
	for _, name := range []string{"tracked.txt", "new file\n.txt", "ignored.txt", "gone.txt"} {
		plant(t, dir, name, key)
	}
	plant(t, dir, "clean.txt", "nothing here")
	plant(t, dir, ".gitignore", "ignored.txt\n")
	must(t, os.Symlink("ignored.txt", filepath.Join(dir, "link.txt")))

	without, err := arch.ScanTree(t.Context(), dir)
	must(t, err)
	if len(without) != 4 { // a walk knows no ignored files, and links are not followed
		t.Errorf("without git: %v", without)
	}

	git(t, dir, "init", "-q")
	git(t, dir, "add", "tracked.txt", "gone.txt", ".gitignore")
	must(t, os.Remove(filepath.Join(dir, "gone.txt")))
	with, err := arch.ScanTree(t.Context(), dir)
	must(t, err)
	if len(with) != 2 || with[0].Path != "new file\n.txt" || with[1].Path != "tracked.txt" {
		t.Errorf("with git: %v", with)
	}
}

func TestScanTreeReportsWhatItCannotRead(t *testing.T) {
	if _, err := arch.ScanTree(t.Context(), filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("an absent tree is clean?")
	}
	dir := t.TempDir()
	plant(t, dir, ".git", "gitdir: nowhere\n")
	if _, err := arch.ScanTree(t.Context(), dir); err == nil {
		t.Error("a broken work tree is clean?")
	}
}

// FuzzScan: never panics, names the file it was given, and finds a key wherever
// text surrounds it.
func FuzzScan(f *testing.F) {
	f.Add("a.go", []byte("-----BEGIN PRIVATE KEY-----\n"))
	f.Add("x.key", []byte{0x30, 0x03, 0x02, 0x01, 0x00})
	body := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(hex.EncodeToString([]byte{7}), 24)))
	planted := "\n-----BEGIN PRIVATE KEY-----\n" + body
	f.Fuzz(func(t *testing.T, path string, content []byte) {
		before := len(arch.Scan(path, content))
		after := arch.Scan(path, append(content[:len(content):len(content)], planted...))
		for _, finding := range after {
			if finding.Path != path {
				t.Errorf("finding of %q names %q", path, finding.Path)
			}
		}
		if len(after) == 0 || len(after) < before-1 { // DER with a tail is DER no more
			t.Errorf("%d findings before, %d after a key was planted", before, len(after))
		}
	})
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
