//go:build unix

package format_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// encryptedDER begins as an encrypted PKCS #8 key does (PBES2); what follows is noise.
var encryptedDER = append([]byte("\x30\x81\x8e\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d\x04\x7f"), bytes.Repeat([]byte{7}, 127)...)

// The permissions of a key are judged for each encoding: with its certificate, with that of an
// authority, and without a certificate.
func TestKeyFiles(t *testing.T) {
	root, _, _ := certtest.Hierarchy(t)
	leaf, other := certtest.New(t, root, "svc"), certtest.New(t, root, "other")
	pkcs8 := func(p *certtest.Pair) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(p.Key)
		certtest.Must(t, err)
		return der
	}
	encodings := map[string]func(*certtest.Pair) []byte{
		"PEM":           func(p *certtest.Pair) []byte { return p.KeyPEM(t) },
		"DER":           pkcs8,
		"encrypted PEM": func(*certtest.Pair) []byte { return certtest.Block("ENCRYPTED PRIVATE KEY", encryptedDER) },
		"encrypted DER": func(*certtest.Pair) []byte { return encryptedDER },
	}
	owners := []struct {
		name string
		uid  int
		fine []fs.FileMode
	}{
		{"root", 0, []fs.FileMode{0o600, 0o400, 0o640, 0o440}},
		{"service", 1600, []fs.FileMode{0o600, 0o400}},
	}
	const modes = "600 400 640 440 660 644 604"
	for encoding, encode1 := range encodings {
		opaque := strings.HasPrefix(encoding, "encrypted")
		for _, owner := range owners {
			for octal := range strings.FieldsSeq(modes) {
				var mode fs.FileMode
				_, err := fmt.Sscanf(octal, "%o", &mode)
				certtest.Must(t, err)
				dir := certtest.Write(t, map[string][]byte{
					"fits/tls.crt": certtest.Encode(leaf), "fits/tls.key": encode1(leaf),
					"ca/ca.crt": certtest.Encode(root), "ca/ca.key": encode1(root),
					"mixed/ca.pem": certtest.Encode(leaf, root), "mixed/ca.key": encode1(root),
					"wrong/tls.crt": certtest.Encode(leaf), "wrong/tls.key": encode1(other),
					"alone/tls.key":     encode1(certtest.New(t, root, "nowhere")),
					"apart/certs/a.crt": certtest.Encode(other), "apart/private/b.key": encode1(other),
				})
				certtest.Must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
					if err != nil || filepath.Ext(path) != ".key" {
						return err
					}
					if os.Geteuid() == 0 {
						if err := os.Chown(path, owner.uid, -1); err != nil {
							return err
						}
					}
					return os.Chmod(path, mode)
				}))
				if os.Geteuid() != 0 && owner.uid == 0 {
					continue // only root can give files away; CI runs this as root too
				}
				exposed := !opaque
				for _, m := range owner.fine {
					exposed = exposed && m != mode
				}
				r := audittest.Run(t, source.Targets{Names: []string{dir}, Bundle: certtest.Bundle([]*certtest.Pair{root})})
				if uncompared := r.Uncompared > 0; uncompared != opaque {
					t.Errorf("%d keys not compared", r.Uncompared)
				}
				got := audittest.States(t, r, dir)
				is := func(parts ...string) string { // the state, and what is not ""
					return strings.Join(strings.Fields(strings.Join(parts, " ")), " ")
				}
				state, readable, unread, mismatch := "OK", "", "", "key-mismatch"
				if exposed {
					state, readable = "WARN", "key-readable"
				}
				if opaque {
					unread, mismatch = "key-not-compared", ""
				}
				wrong, crit := "CRIT", map[bool]string{true: "CRIT", false: "OK"}[exposed]
				if opaque {
					wrong = state
				}
				expected := map[string]string{
					"fits/tls.crt": is(state, readable, unread), "ca/ca.crt": is(crit, readable, unread),
					"wrong/tls.crt": is(wrong, mismatch, readable, unread), "alone/tls.key": is(state, readable, unread),
					"apart/certs/a.crt": "OK",
				}
				if exposed || opaque {
					expected["apart/private/b.key"] = is(state, readable, unread)
				}
				expected["mixed/ca.pem"] = map[bool]string{true: is(state, unread), false: is("CRIT", "key-mismatch", readable)}[opaque]
				expected["mixed/ca.pem#2"] = is(crit, readable)
				t.Run(encoding+" "+owner.name+" "+octal, func(t *testing.T) { audittest.Want(t, got, expected) })
			}
		}
	}
}

// Keys in DER are found under any name, and the three encodings of OpenSSL are read.
func TestKeysInDER(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	certtest.Must(t, err)
	large, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	certtest.Must(t, err)
	short := certtest.New(t, root, "short")
	sec1, err := x509.MarshalECPrivateKey(short.Key)
	certtest.Must(t, err)
	sec1Large, err := x509.MarshalECPrivateKey(large)
	certtest.Must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(long)
	certtest.Must(t, err)
	for name, key := range map[string][]byte{"PKCS #1": x509.MarshalPKCS1PrivateKey(long), "PKCS #8": pkcs8, "SEC 1": sec1, "SEC 1, P-521": sec1Large} {
		dir := certtest.Write(t, map[string][]byte{"server": key})
		certtest.Must(t, os.Chmod(filepath.Join(dir, "server"), 0o604))
		audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir), map[string]string{"server": "WARN key-readable"})
		for n := range key { // cut off anywhere: no panic, and no key
			dir := certtest.Write(t, map[string][]byte{"cut.der": key[:n]})
			if got := audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir)["cut.der"]; n%50 == 0 && !strings.HasPrefix(got, "ERROR ") {
				t.Errorf("%s cut to %d bytes: %s", name, n, got)
			}
			if n > 60 {
				break
			}
		}
	}
	dir := certtest.Write(t, map[string][]byte{"tls.crt": certtest.Encode(certtest.New(t, root, "svc", certtest.Holds(long.Public()))), "tls.key": x509.MarshalPKCS1PrivateKey(long)})
	audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir), map[string]string{"tls.crt": "OK"})
}

func FuzzKeyInDER(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	certtest.Must(f, err)
	for _, marshal := range []func() ([]byte, error){
		func() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(key) },
		func() ([]byte, error) { return x509.MarshalECPrivateKey(key) },
	} {
		der, err := marshal()
		certtest.Must(f, err)
		f.Add(der)
	}
	f.Add(encryptedDER)
	f.Add([]byte("\x30\x82\x04\xa4\x02\x01\x00\x02\x82\x01\x01\x00"))
	f.Fuzz(func(t *testing.T, data []byte) { audittest.Parts(data) })
}

// An encrypted key cannot be compared. The authority names its file by the fingerprint of the
// certificate. An encrypted key with another name is a row.
func TestEncryptedKeysOfAuthority(t *testing.T) {
	root, other := certtest.New(t, nil, "Test Root", certtest.Authority), certtest.New(t, nil, "Other Root", certtest.Authority)
	name := func(p *certtest.Pair) string { return fmt.Sprintf("secrets/%x.key", sha256.Sum256(p.Cert.Raw)) }
	key := certtest.Block("ENCRYPTED PRIVATE KEY", encryptedDER)
	dir := certtest.Write(t, map[string][]byte{"certs/root.crt": certtest.Encode(root), name(root): key, name(other): key, "secrets/log.key": key})
	r := audittest.Run(t, audittest.Paths(dir))
	audittest.Want(t, audittest.States(t, r, dir), map[string]string{"certs/root.crt": "OK", name(other): "OK key-not-compared", "secrets/log.key": "OK key-not-compared"})
	if got := r.String(); !strings.HasSuffix(got, "; 2 private keys") {
		t.Error(got)
	}
	var b bytes.Buffer
	certtest.Must(t, r.Render("table", &b, 0))
	if !strings.Contains(b.String(), "encrypted private key") {
		t.Error(b.String())
	}
	named := filepath.Join(dir, name(root))
	audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(dir, named)), dir), map[string]string{
		"certs/root.crt": "OK", name(root): "OK key-not-compared", name(other): "OK key-not-compared", "secrets/log.key": "OK key-not-compared",
	})
}
