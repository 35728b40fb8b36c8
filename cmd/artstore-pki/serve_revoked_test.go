package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// A certificate that was revoked is refused by the authority itself, also on a
// connection that was open before. Another instance of the service renews meanwhile.
func TestRevocationReachesTheAuthority(t *testing.T) {
	p := &program{t: t, dir: t.TempDir()}
	p.ok("init", "--plain-keys", "--dir", p.path("ca"))
	url := p.serve("url", "serve", "--dir", p.path("ca"), "--listen", "127.0.0.1:0")
	for _, out := range []string{"stolen", "honest"} {
		p.token("ingester")
		p.ok("issue", "--ca-url", url, "--token-file", p.path("ingester.token"), "--out", p.path(out))
	}
	stolen := clientConfig(p, "stolen")
	open, err := (&tls.Dialer{Config: stolen}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	if status, err := exchange(open, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"); status != http.StatusOK {
		t.Fatal(status, err)
	}

	body := fmt.Sprintf(`{"serial":%q,"passive":true,"reasonCode":1}`, p.serial("stolen/tls.crt"))
	other, err := (&tls.Dialer{Config: stolen}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if status, err := exchange(other, fmt.Sprintf("POST /revoke HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)); status != http.StatusOK {
		t.Fatal(status, err)
	}
	n, err := open.Read(make([]byte, 1))
	if err == nil {
		t.Errorf("%d bytes on the connection of a revoked peer; want it cut", n)
	}
	if !strings.Contains(p.output(), "reason=revoked during=connection") { // idle connections end as well, later
		t.Error("the connection of a revoked peer ended, and was not cut")
	}
	again, err := (&tls.Dialer{Config: stolen}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
	if err == nil { // in TLS 1.3 a client has finished before the server has judged it
		status, answer := exchange(again, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		if answer == nil {
			t.Errorf("a revoked peer was answered %d", status)
		}
		_ = again.Close()
	}
	p.ok("renew", "--ca-url", url, p.path("honest"))
	if out := p.stop(); !strings.Contains(out, "authority: stopped") {
		t.Errorf("no clean stop:\n%s", out)
	}
}

func clientConfig(p *program, dir string) *tls.Config {
	p.t.Helper()
	pair, err := tls.X509KeyPair([]byte(p.read(dir+"/tls.crt")), []byte(p.read(dir+"/tls.key")))
	if err != nil {
		p.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(p.read(dir + "/ca.crt")))
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}}
}

// exchange sends a request of HTTP/1.1 as it is written, and reads the answer.
func exchange(c io.ReadWriter, request string) (status int, err error) {
	if _, err := io.WriteString(c, request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode, err
}
