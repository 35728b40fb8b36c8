package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/devstack"
)

// checkPlainIsAlone expects that the service without TLS has no network. The volume with its
// socket is mounted by the proxy in front of it and nobody else, which checkHardened sees.
func checkPlainIsAlone(t *testing.T, s *stack) {
	t.Helper()
	c := s.inspect(proxiedPlain)
	for name, network := range c.NetworkSettings.Networks {
		if name != "none" || network.IPAddress != "" {
			t.Errorf("%s is in the network %s at %q", proxiedPlain, name, network.IPAddress)
		}
	}
	if len(c.NetworkSettings.Ports) != 0 {
		t.Errorf("%s has ports: %v", proxiedPlain, c.NetworkSettings.Ports)
	}
	out, err := s.try(s.command("exec", "-T", "ca", "/artstore-pki", "inspect", proxiedPlain+":8000")...)
	if err == nil || !strings.Contains(out, proxiedPlain) {
		t.Errorf("another container asks for %s: %v\n%s", proxiedPlain, err, out)
	}
}

// checkForgery sends headers that would make somebody else of a peer. The service refuses names
// that are not allowed and tokens of other certificates, so what gets through would be seen.
func (p *peers) checkForgery(t *testing.T, s *stack) {
	t.Helper()
	// Whatever asks Docker comes first: on a busy machine that takes longer than a certificate lives.
	url, admin, element := "https://"+s.address("ca", "9443"), s.address("admin-module", "8000"), s.address(proxied, "8000")
	account, first, second := s.accountFiles(), s.token("ingester", "ingester"), s.token("ingester", "ingester")
	own, other := enrol(t, url, first).Certificate, enrol(t, url, second).Certificate
	token := p.accessToken(t, admin, account, &own)
	for _, c := range []struct {
		what   string
		cert   *tls.Certificate
		forged http.Header
		want   int
	}{
		{"nothing made up", &own, nil, http.StatusOK},
		{"a name that is not allowed", &own, http.Header{"X-Client-Identity": {"query-module"}, "X_Client_Identity": {"query-module"}}, http.StatusOK},
		{"another certificate", &own, http.Header{"Client-Cert": {headerOf(other)}, "Client_Cert": {headerOf(other)}}, http.StatusOK},
		{"headers to be removed", &own, http.Header{"Connection": {"X-Client-Identity, Client-Cert"}}, http.StatusOK},
		{"a stolen token", &other, nil, http.StatusUnauthorized},
		{"a stolen token and its certificate", &other, http.Header{"Client-Cert": {headerOf(own)}}, http.StatusUnauthorized},
		{"a stolen token, and a header to be removed", &other, http.Header{"Client-Cert": {headerOf(own)}, "Connection": {"Client-Cert"}}, http.StatusUnauthorized},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+element+"/api/v1/files", nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range c.forged {
			req.Header[name] = values
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp := p.do(t, proxied, c.cert, req)
		_ = resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s, %s: status %d, want %d", proxied, c.what, resp.StatusCode, c.want)
		}
	}
}

// headerOf is a certificate as Client-Cert has it (RFC 9440 §2.1).
func headerOf(cert tls.Certificate) string {
	return ":" + base64.StdEncoding.EncodeToString(cert.Certificate[0]) + ":"
}

// accessToken gets a token for an account at the Admin Module at an address, bound to cert.
func (p *peers) accessToken(t *testing.T, admin string, account accountFiles, cert *tls.Certificate) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"client_id": account.id, "client_secret": account.secret})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+admin+devstack.TokenPath, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp := p.do(t, "admin-module", cert, req)
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Token == "" {
		t.Fatalf("asking for a token: status %d, %v", resp.StatusCode, err)
	}
	return answer.Token
}

// do sends a request to a server over a connection of its own.
func (p *peers) do(t *testing.T, name string, cert *tls.Certificate, req *http.Request) *http.Response {
	t.Helper()
	client := &http.Client{Timeout: dialTimeout, Transport: &http.Transport{TLSClientConfig: p.config(name, cert), DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return resp
}
