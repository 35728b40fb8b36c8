package ca_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
)

// docs/threat-model.md says of keys in a handshake: crypto/tls refuses an RSA key
// above 8192 bits before it computes with it, and crypto/x509 checks at most a hundred
// signatures of a chain with smaller keys.
func TestKeysInHandshakes(t *testing.T) {
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	u, err := url.Parse(c.URL)
	if err != nil {
		t.Fatal(err)
	}
	by, err := rsa.GenerateKey(rand.Reader, 2048) // for the algorithm; its signature is replaced
	if err != nil {
		t.Fatal(err)
	}
	handshake := func(chain [][]byte) (cost time.Duration, refusal error) {
		start := processTime(t)
		conn, err := tls.Dial("tcp", u.Host, &tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: rootPool(c), ServerName: u.Hostname(),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: chain, PrivateKey: newKey(t)}, nil
			},
		})
		if err == nil {
			_, err = conn.Read(make([]byte, 1)) // TLS 1.3: the refusal comes after the handshake of the client
			_ = conn.Close()
		}
		return processTime(t) - start, err
	}
	below := func(keys ...*rsa.PublicKey) [][]byte {
		name := pkix.Name{CommonName: "Devices"}
		leaf := certificateFor(t, newKey(t).Public(), &x509.Certificate{Subject: name, PublicKey: by.Public()}, by)
		chain := [][]byte{resigned(t, leaf.Raw, noSignature(keys[0]))}
		for _, key := range keys {
			ec, now := newKey(t), time.Now()
			tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
			der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key, ec)
			if err != nil {
				t.Fatal(err)
			}
			chain = append(chain, der)
		}
		return chain
	}
	control := controlCost(t)
	cost, err := handshake(below(hugeKey(t, 180_000)))
	if err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("a key of 180 000 bits: %v", err)
	}
	if cost > 100*control {
		t.Errorf("a key of 180 000 bits cost %v, one RSA-4096 check %v", cost, control)
	}
	var many []*rsa.PublicKey
	for range 120 {
		many = append(many, hugeKey(t, 8192))
	}
	cost, err = handshake(below(many...))
	if err == nil {
		t.Error("a chain of keys of 8192 bits was accepted")
	}
	t.Logf("120 keys of 8192 bits: %v of processor time, %.0f RSA-4096 checks; %v", cost, float64(cost)/float64(control), err)
	if cost > 3000*control {
		t.Errorf("120 keys of 8192 bits cost %v", cost)
	}
}
