package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

const (
	dialTimeout = time.Minute
	livePath    = "/health/live" // of ArtStore's services
	caPath      = "/health"
	// A server that closes while bytes of ours are on their way resets the
	// connection, and its alert can get lost in that: then the reason is asked for again.
	reasonTries = 10
)

// enrol gets a certificate from an authority as any service does.
func enrol(t *testing.T, url string, token secret.String) rotation.Material {
	t.Helper()
	m, err := enroll.Issue(t.Context(), enroll.Config{
		URL: url, Dir: t.TempDir(),
		Token: func(context.Context) (secret.String, error) { return token, nil },
	})
	if err != nil {
		t.Fatalf("enrolling at %s: %v", url, err)
	}
	return m
}

// peers are those who try to talk to the stack's servers.
type peers struct {
	roots   *x509.CertPool // the stack's, and no others
	allowed tls.Certificate
	unnamed tls.Certificate // of the stack's authority, for a service that is on no list
	foreign tls.Certificate // the right name, from an authority that nobody knows
}

func newPeers(t *testing.T, s *stack) *peers {
	t.Helper()
	url := "https://" + s.address("ca", "9443")
	allowed := enrol(t, url, s.token("ingester", "ingester"))
	unnamed := enrol(t, url, s.token("query-module"))
	other := catest.Start(t, catest.Options{})
	foreign := enrol(t, other.URL, other.Token(t, "ingester"))
	p := &peers{roots: x509.NewCertPool(), allowed: allowed.Certificate, unnamed: unnamed.Certificate, foreign: foreign.Certificate}
	for _, root := range allowed.Roots {
		p.roots.AddCert(root)
	}
	// Nothing is wrong with the certificate but its name: the authority itself, which
	// verifies what it is shown and has no list, takes it.
	checkAnswers(t, s.address("ca", "9443"), caPath, p.config("ca", &p.unnamed))
	checkRefused(t, s.address("ca", "9443"), p.config("ca", &p.foreign), "ca, a foreign authority", "unknown certificate authority")
	return p
}

// config shows cert, if any, whatever authorities the server asks for: a client
// that holds back a foreign certificate would test itself.
func (p *peers) config(name string, cert *tls.Certificate) *tls.Config {
	conf := &tls.Config{RootCAs: p.roots, ServerName: name, MinVersion: tls.VersionTLS12}
	if cert != nil {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return conf
}

// checkRefusals asks one server in every way that must not work, after the one
// that must: without it the refusals would prove nothing.
func (p *peers) checkRefusals(t *testing.T, address, name string) {
	t.Helper()
	state := checkAnswers(t, address, livePath, p.config(name, &p.allowed))
	if state.Version != tls.VersionTLS13 {
		t.Errorf("%s: an allowed peer got %s, want TLS 1.3", name, tls.VersionName(state.Version))
	}
	checkPlaintext(t, address, name)
	old := p.config(name, &p.allowed)
	old.MaxVersion = tls.VersionTLS12
	for _, c := range []struct {
		what, reason string
		conf         *tls.Config
	}{
		{"TLS 1.2", "protocol version not supported", old},
		{"no client certificate", "certificate required", p.config(name, nil)},
		{"a foreign authority", "unknown certificate authority", p.config(name, &p.foreign)},
		{"a name on no list", "bad certificate", p.config(name, &p.unnamed)},
	} {
		checkRefused(t, address, c.conf, name+", "+c.what, c.reason)
	}
}

// checkAnswers wants an answer to a health question.
func checkAnswers(t *testing.T, address, path string, conf *tls.Config) tls.ConnectionState {
	t.Helper()
	conn, err := dialTLS(t, address, conf)
	if err != nil {
		t.Fatalf("%s: connecting: %v", conf.ServerName, err)
	}
	defer func() { _ = conn.Close() }()
	resp, err := ask(conn, path)
	if err != nil {
		t.Fatalf("%s: %v", conf.ServerName, err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, want 200", conf.ServerName, resp.StatusCode)
	}
	return conn.ConnectionState()
}

// checkRefused wants no answer, and the reason at least once.
func checkRefused(t *testing.T, address string, conf *tls.Config, what, reason string) {
	t.Helper()
	conn, err := dialTLS(t, address, conf)
	if err == nil {
		resp, askErr := ask(conn, livePath)
		_ = conn.Close()
		if err = askErr; err == nil {
			t.Errorf("%s: answered with status %d", what, resp.StatusCode)
			return
		}
	}
	for range reasonTries {
		if strings.Contains(err.Error(), reason) {
			return
		}
		err = silent(t, address, conf)
	}
	t.Errorf("%s: refused with %q, want %q", what, err, reason)
}

// silent connects and only listens: in TLS 1.3 a server judges the client's
// certificate after the client thinks that it is connected.
func silent(t *testing.T, address string, conf *tls.Config) error {
	t.Helper()
	conn, err := dialTLS(t, address, conf)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	n, err := conn.Read(make([]byte, 1))
	if n > 0 {
		return errors.New("the server sent something")
	}
	return err
}

// checkPlaintext wants Go's own answer to cleartext on a TLS port: nothing of the service.
func checkPlaintext(t *testing.T, address, name string) {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(dialTimeout))
	resp, err := ask(conn, livePath)
	if err != nil {
		t.Errorf("%s: plaintext: %v", name, err)
		return
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s: plaintext: %v", name, err)
	}
	const want = "Client sent an HTTP request to an HTTPS server."
	if resp.StatusCode != http.StatusBadRequest || strings.TrimSpace(string(body)) != want {
		t.Errorf("%s: plaintext got %d %q, want 400 %q", name, resp.StatusCode, body, want)
	}
}

func dialTLS(t *testing.T, address string, conf *tls.Config) (*tls.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), dialTimeout)
	defer cancel()
	d := tls.Dialer{Config: conf}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(dialTimeout))
	return conn.(*tls.Conn), nil
}

func ask(conn net.Conn, path string) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodGet, "http://server"+path, nil)
	if err != nil {
		return nil, err
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(conn), req)
}
