package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// client speaks the wire format by hand, so that a mistake in a shared client
// cannot hide one in the handlers.
type client struct {
	t    testing.TB
	url  string
	http *http.Client
}

func newClient(t testing.TB, c *catest.CA, cert *tls.Certificate) *client {
	t.Helper()
	pool := x509.NewCertPool()
	for _, r := range c.Roots() {
		pool.AddCert(r)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	tr := &http.Transport{TLSClientConfig: conf}
	t.Cleanup(tr.CloseIdleConnections)
	return &client{t, c.URL, &http.Client{Transport: tr, Timeout: 2 * time.Minute}} // with SQLite each caller may wait ten seconds for a lock, one after the other
}

// do sends body as JSON and returns status and body of the answer.
func (c *client) do(method, path string, body any, header ...string) (int, []byte) {
	c.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(c.t.Context()), method, c.url+path, r)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Errorf("%s %s: %v", method, path, err)
		return 0, nil
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Errorf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, data
}

// message returns the text of an error answer.
func message(t testing.TB, body []byte) string {
	t.Helper()
	var e stepapi.Error
	if err := json.Unmarshal(body, &e); err != nil || e.Message == "" {
		t.Errorf("not an error body: %q", body)
	}
	return e.Message
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func csrOf(t testing.TB, template *x509.CertificateRequest) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// csr returns a certificate request for names with the given key.
func csr(t testing.TB, key crypto.Signer, cn string, names ...string) string {
	t.Helper()
	req := &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}
	for _, n := range names {
		u, err := url.Parse(n)
		switch {
		case net.ParseIP(n) != nil:
			req.IPAddresses = append(req.IPAddresses, net.ParseIP(n))
		case strings.Contains(n, "://") && err == nil:
			req.URIs = append(req.URIs, u)
		case strings.Contains(n, "@"):
			req.EmailAddresses = append(req.EmailAddresses, n)
		default:
			req.DNSNames = append(req.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// pair parses the answer of /sign into a certificate for TLS.
func pair(t testing.TB, body []byte, key crypto.Signer) *tls.Certificate {
	t.Helper()
	var resp stepapi.SignResponse
	if err := json.Unmarshal(body, &resp); err != nil {
		t.Fatalf("sign answer %q: %v", body, err)
	}
	chain, err := pemfile.Certificates([]byte(strings.Join(resp.Chain, "")))
	if err != nil {
		t.Fatalf("sign answer: %v", err)
	}
	if !certs.Fits(chain[0], key) {
		t.Fatal("the certificate is for another key")
	}
	if resp.Certificate != resp.Chain[0] || resp.CA != resp.Chain[1] {
		t.Error("crt and ca are not the first of the chain")
	}
	out := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out
}

// enrol obtains a certificate for names, which must be a set that one token covers.
func enrol(t testing.TB, c *catest.CA, service string, names ...string) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	status, body := newClient(t, c, nil).do("POST", "/1.0/sign", signRequest(t, c.Token(t, service, names...), key, service, names...))
	if status != http.StatusCreated {
		t.Fatalf("sign: %d %s", status, body)
	}
	return pair(t, body, key)
}

func signRequest(t testing.TB, token secret.String, key crypto.Signer, cn string, names ...string) stepapi.SignRequest {
	t.Helper()
	return stepapi.SignRequest{CSR: csr(t, key, cn, names...), OTT: token.Expose()}
}

func hexID(c *x509.Certificate) string { return hex.EncodeToString(c.SubjectKeyId) }

func listAll(t testing.TB, c *catest.CA) []record.Certificate {
	t.Helper()
	page, next, err := openRecord(t, c).List(t.Context(), record.Query{Limit: 1000})
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	return page
}
