package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDashboardReaders lets an authority serve its dashboard over mutual TLS, and tries as a reader, as
// another service, as a stranger with a certificate of somebody else, without a certificate, with TLS 1.2,
// and in cleartext. Then the reader is revoked.
func TestDashboardReaders(t *testing.T) {
	t.Parallel()
	p := &program{t: t, dir: t.TempDir()}
	defer p.stop()
	p.ok("init", "--dir", p.path("ca"), "--dns", "localhost", "--dns", "127.0.0.1")
	p.ok("init", "--dir", p.path("other"), "--dns", "localhost", "--dns", "127.0.0.1")
	serve := []string{"serve", "--listen", "127.0.0.1:0", "--dir"}
	url := p.serve("ca.url", append(serve, p.path("ca"), "--dashboard", "localhost:0", "--dashboard-reader", "ingester")...)
	foreign := p.serve("other.url", append(serve, p.path("other"))...)
	at := regexp.MustCompile(`dashboard: serving on (https://\S+)`).FindStringSubmatch(p.output())
	if at == nil {
		t.Fatal("no address is said:", p.output())
	}
	for dir, from := range map[string]string{"ingester": url, "query-module": url, "stranger": foreign} {
		service := strings.Replace(dir, "stranger", "ingester", 1)
		p.ok("token", "--dir", map[bool]string{true: p.path("ca"), false: p.path("other")}[from == url], "--out", p.path(dir+".token"), service)
		p.ok("issue", "--ca-url", from, "--token-file", p.path(dir+".token"), "--out", p.path(dir))
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(p.read("ingester/ca.crt")))
	client := func(dir string, most uint16) *http.Client {
		conf := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, MaxVersion: most}
		if dir != "" {
			pair, err := tls.LoadX509KeyPair(p.path(dir+"/tls.crt"), p.path(dir+"/tls.key"))
			must(t, err)
			// Also where the server did not ask for its issuer.
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		return &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	}
	read := func(c *http.Client, address string) (status int, body string, err error) {
		resp, err := c.Get(address)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = resp.Body.Close() }() // read to its end
		data, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(data), err
	}
	reader := client("ingester", 0)
	if status, body, err := read(reader, at[1]+"/services"); err != nil || status != http.StatusOK || !strings.Contains(body, "Lineages") {
		t.Fatalf("the reader: %d %v %.200s", status, err, body)
	}
	for who, c := range map[string]*http.Client{
		"another service": client("query-module", 0), "a stranger": client("stranger", 0), "nobody": client("", 0), "TLS 1.2": client("ingester", tls.VersionTLS12),
	} {
		for _, path := range []string{"/", "/services", "/csv/services", "/nothing"} {
			if status, body, err := read(c, at[1]+path); err == nil && (status == http.StatusOK || strings.Contains(body, "artstore-pki")) {
				t.Errorf("%s got %s: %d %.200s", who, path, status, body)
			}
		}
	}
	if status, body, err := read(&http.Client{Transport: &http.Transport{}}, strings.Replace(at[1], "https", "http", 1)); err == nil && status == http.StatusOK {
		t.Errorf("in cleartext: %d %.200s", status, body)
	}
	p.ok("revoke", "--dir", p.path("ca"), "--file", p.path("ingester/tls.crt"))
	for { // the authority learns of it by its record
		if _, _, err := read(reader, at[1]+"/"); err != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
}
