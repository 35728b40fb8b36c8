//go:build unix

package format_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// oversized returns a public key of 180 000 bits with the largest exponent that crypto/rsa
// accepts. One signature check with it takes seconds.
func oversized() *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), 180_000)
	return &rsa.PublicKey{N: n.Sub(n, big.NewInt(357)), E: 1<<31 - 1}
}

var sha256WithRSA = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}

// sealedByOversized changes a certificate, request or list so that such a key seems to have
// signed it: both algorithms are replaced, and the signature has the right length.
func sealedByOversized(t testing.TB, data []byte) []byte {
	t.Helper()
	algorithm, err := asn1.Marshal(sha256WithRSA)
	certtest.Must(t, err)
	ecdsa, err := asn1.Marshal(pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}})
	certtest.Must(t, err)
	var whole struct{ Signed, Algorithm, Signature asn1.RawValue }
	_, err = asn1.Unmarshal(data, &whole)
	certtest.Must(t, err)
	body := bytes.Replace(whole.Signed.Bytes, ecdsa, algorithm, 1)
	signature := bytes.Repeat([]byte{0x21}, 180_000/8)
	out, err := asn1.Marshal(struct {
		Signed    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: body}, sha256WithRSA, asn1.BitString{Bytes: signature, BitLength: 180_000}})
	certtest.Must(t, err)
	return out
}

// A key that is too long to compute with is a finding in each kind of file. No signature is
// checked with it: each check would take seconds.
func TestOversizedKeys(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	long := certtest.New(t, root, "Long Intermediate", certtest.Authority, signs, certtest.Holds(oversized()))
	signer := *long.Cert // the same name with a key that we have; its signatures are replaced
	signer.PublicKey = root.Key.Public()
	under := *certtest.New(t, &certtest.Pair{Cert: &signer, Key: root.Key}, "ingester")
	leaf, err := x509.ParseCertificate(sealedByOversized(t, under.Cert.Raw))
	certtest.Must(t, err)
	under.Cert = leaf
	list := sealedByOversized(t, revocations(t, &certtest.Pair{Cert: &signer, Key: root.Key}, time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	var csr struct{ Info, Algorithm, Signature asn1.RawValue }
	_, err = asn1.Unmarshal(request(t, root.Key, &x509.CertificateRequest{DNSNames: []string{"ingester"}}), &csr)
	certtest.Must(t, err)
	spki, err := x509.MarshalPKIXPublicKey(oversized())
	certtest.Must(t, err)
	own, err := x509.MarshalPKIXPublicKey(root.Key.Public())
	certtest.Must(t, err)
	body := bytes.Replace(csr.Info.Bytes, own, spki, 1)
	whole, err := asn1.Marshal([]asn1.RawValue{{Tag: asn1.TagSequence, IsCompound: true, Bytes: body}, csr.Algorithm, csr.Signature})
	certtest.Must(t, err)
	key, err := asn1.Marshal(struct {
		Version                int
		N, E, D, P, Q, A, B, C *big.Int
	}{0, oversized().N, big.NewInt(65537), oversized().N, big.NewInt(3), big.NewInt(5), big.NewInt(1), big.NewInt(1), big.NewInt(1)})
	certtest.Must(t, err)

	dir := certtest.Write(t, map[string][]byte{
		"ca.crt":      certtest.Encode(root),
		"leaf.crt":    certtest.Encode(&under, long),
		"long.crt":    certtest.Encode(certtest.New(t, root, "service", certtest.Holds(oversized()))),
		"request.pem": certtest.Block("CERTIFICATE REQUEST", sealedByOversized(t, whole)),
		"list.pem":    append(certtest.Block("X509 CRL", list), certtest.Encode(long)...),
		"key.pem":     certtest.Block("RSA PRIVATE KEY", key),
	})
	start := cpuTime(t)
	text, r := explained(t, source.Targets{Names: []string{
		filepath.Join(dir, "leaf.crt"), filepath.Join(dir, "long.crt"), filepath.Join(dir, "request.pem"), filepath.Join(dir, "list.pem"), filepath.Join(dir, "key.pem"),
	}, Bundle: certtest.Bundle([]*certtest.Pair{root})})
	if used := cpuTime(t) - start; used > time.Second {
		t.Errorf("it took %v of processor time", used)
	}
	found := map[string]bool{}
	for _, row := range r.Rows {
		for _, f := range row.Findings {
			found[filepath.Base(row.Place)+" "+f.Check] = true
		}
		if row.Err != nil {
			found[filepath.Base(row.Place)+" "+row.Err.Error()] = true
		}
	}
	for _, want := range []string{
		"leaf.crt chain-invalid", "leaf.crt weak-key", "long.crt weak-key", "request.pem weak-key", "list.pem weak-key",
		"key.pem the private key has more than the 6144 bytes of any key in use",
	} {
		if !found[want] {
			t.Errorf("no finding %q among %v", want, found)
		}
	}
	for _, want := range []string{"the key of Long Intermediate is too long (RSA 180000)", "RSA 180000: peers compute with 8192 bits at most"} {
		if !strings.Contains(text, want) {
			t.Errorf("no text %q in:\n%s", want, text)
		}
	}
}

// cpuTime returns the processor time of this process, because on a busy machine the elapsed
// time says little.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	certtest.Must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
