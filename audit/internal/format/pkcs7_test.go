package format_test

import (
	"bytes"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/internal/dertest"
	"github.com/artstore/artstore-pki/audit/internal/format"
)

// envelope returns SignedData without a signature, the form in which chains are delivered.
func envelope(certs []byte) []byte {
	signed := dertest.Sequence(dertest.Number(1), dertest.Element(der.SET), dertest.Sequence(dertest.IDData), dertest.Explicit(certs), dertest.Element(der.SET))
	return dertest.Sequence(dertest.OID(1, 2, 840, 113549, 1, 7, 2), dertest.Explicit(signed))
}

func TestPKCS7(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	all := bytes.Join([][]byte{root.Cert.Raw, leaf.Cert.Raw, intermediate.Cert.Raw}, nil)
	odd := certtest.New(t, root, "odd", certtest.OddSerial)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"DER":         {envelope(all), "Test Root, ingester, Test Intermediate"},
		"PEM":         {certtest.Block("PKCS7", envelope(all)), "Test Root, ingester, Test Intermediate"},
		"refused":     {envelope(append(certtest.NegativeSerial(t, odd), leaf.Cert.Raw...)), "refused, ingester"},
		"other kinds": {envelope(append(dertest.Element(der.Tag(1).Constructed().ContextSpecific(), dertest.Number(1)), leaf.Cert.Raw...)), "ingester"},
		"nothing":     {envelope(nil), "error: there is no certificate in it"},
		"cut inside":  {envelope(all[:len(all)-5]), "Test Root, ingester, error: the PKCS #7 envelope is damaged"},
		"cut":         {envelope(all)[:300], "error: the PKCS #7 envelope is damaged"},
		"damaged PEM": {certtest.Block("PKCS7", envelope(all))[:200], "error: block 1 is damaged or cut off"},
	} {
		if got := audittest.Describe(audittest.Parts(c.data)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	// Their order says nothing, and the chain is judged all the same.
	dir := certtest.Write(t, map[string][]byte{"ca.crt": certtest.Encode(root), "chain.p7b": envelope(all), "alone.p7c": envelope(leaf.Cert.Raw)})
	audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir), map[string]string{
		"ca.crt": "OK", "alone.p7c": "CRIT chain-incomplete", "chain.p7b#2": "OK", "chain.p7b#3": "OK",
	})
}

func TestPKCS7OfOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl to write envelopes with")
	}
	root, intermediate, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{"all.pem": certtest.Encode(leaf, intermediate, root)})
	for _, form := range []string{"PEM", "DER"} {
		out := filepath.Join(dir, form)
		cmd := exec.CommandContext(t.Context(), "openssl", "crl2pkcs7", "-nocrl", "-certfile", filepath.Join(dir, "all.pem"), "-outform", form, "-out", out)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		data, err := os.ReadFile(out)
		certtest.Must(t, err)
		if got := audittest.Describe(audittest.Parts(data)); got != "ingester, Test Intermediate, Test Root" {
			t.Errorf("%s: %s", form, got)
		}
	}
}

// Contract: any input gives parts, each with a certificate or an error, and the certificates of an
// envelope come out unchanged.
func FuzzPKCS7(f *testing.F) {
	_, intermediate, leaf := certtest.Hierarchy(f)
	f.Add(leaf.Cert.Raw)
	f.Add(append(bytes.Clone(leaf.Cert.Raw), intermediate.Cert.Raw...))
	f.Add(envelope(leaf.Cert.Raw))
	f.Fuzz(func(t *testing.T, data []byte) {
		if format.Sniff(data) == "PKCS #7" {
			for _, p := range audittest.Parts(data) {
				if p.Cert == nil && p.Err == nil {
					t.Errorf("%+v", p)
				}
			}
		}
		if _, err := x509.ParseCertificate(data); err != nil {
			return
		}
		parts := audittest.Parts(envelope(data))
		if len(parts) != 1 || parts[0].Cert == nil || parts[0].Err != nil || !bytes.Equal(parts[0].Cert.Raw, data) {
			t.Errorf("%s", audittest.Describe(parts))
		}
	})
}
