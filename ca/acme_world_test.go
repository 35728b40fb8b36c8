package ca_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/acme"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/dnstest"
)

// acmeWorld is an authority with ACME, the network that it looks at, and the
// machine of a client that answers challenges there.
type acmeWorld struct {
	*catest.CA
	mu      sync.Mutex
	txt     map[string][]string // DNS name → records
	files   map[string]string   // path → content, on http-01's port
	cert    *tls.Certificate    // on tls-alpn-01's port
	visited int                 // requests on http-01's port
}

func acmeProfiles() map[string]policy.Profile {
	return map[string]policy.Profile{
		"web":   {Names: []string{"web.example", "api.example", "127.0.0.1", "localhost", "192.0.2.7"}, Wildcards: []string{"*.api.example"}, ACME: true},
		"other": {Names: []string{"other.example", "shared.example"}, ACME: true, KeyTypes: []string{"EC-P384"}},
		"third": {Names: []string{"third.example", "shared.example"}, ACME: true},
		"db":    {Names: []string{"db.example"}},
	}
}

func startACME(t testing.TB) *acmeWorld {
	t.Helper()
	return startACMEWith(t, catest.Options{})
}

// startACMEWith takes more settings of the provisioner, such as ", require_eab: true".
func startACMEWith(t testing.TB, opt catest.Options, settings ...string) *acmeWorld {
	t.Helper()
	w := &acmeWorld{txt: make(map[string][]string), files: make(map[string]string)}
	dns, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = dnstest.Serve(dns, func(name string) []string {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.txt[name])
		})
	}()
	t.Cleanup(func() { _ = dns.Close() })
	web := httptest.NewServer(http.HandlerFunc(w.serveChallenge))
	t.Cleanup(web.Close)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		NextProtos: []string{acme.ALPNProto},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.cert, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).HandshakeContext(context.Background())
			_ = conn.Close()
		}
	}()
	_, httpPort, _ := net.SplitHostPort(web.Listener.Addr().String())
	_, tlsPort, _ := net.SplitHostPort(ln.Addr().String())
	entry := fmt.Sprintf("  - {type: ACME, name: acme, resolver: %q, http_port: %s, tls_port: %s, networks: [127.0.0.0/8]%s}\n", dns.LocalAddr(), httpPort, tlsPort, strings.Join(settings, ""))
	edit := opt.Edit
	if opt.Profiles == nil {
		opt.Profiles = acmeProfiles()
	}
	opt.Edit = func(b []byte) []byte {
		if b = withProvisioner(entry)(b); edit != nil {
			b = edit(b)
		}
		return b
	}
	w.CA = catest.Start(t, opt)
	return w
}

func (w *acmeWorld) serveChallenge(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.visited++
	text, ok := w.files[r.URL.Path]
	if target, found := strings.CutPrefix(text, "redirect "); found {
		http.Redirect(rw, r, target, http.StatusFound)
		return
	}
	if !ok {
		http.NotFound(rw, r)
		return
	}
	_, _ = rw.Write([]byte(text))
}

// account is a client with an account of its own.
func (w *acmeWorld) account(t testing.TB) *acme.Client {
	t.Helper()
	cl := &acme.Client{Key: newKey(t), DirectoryURL: w.URL + "/acme/acme/directory", HTTPClient: newClient(t, w.CA, nil).http}
	if _, err := cl.Register(t.Context(), &acme.Account{Contact: []string{"mailto:ops@web.example"}}, acme.AcceptTOS); err != nil {
		t.Fatalf("registering: %v", err)
	}
	return cl
}

// order makes an order for names, which are DNS names or IP addresses.
func order(t testing.TB, cl *acme.Client, names ...string) (*acme.Order, error) {
	t.Helper()
	var ids []acme.AuthzID
	for _, n := range names {
		if net.ParseIP(n) != nil {
			ids = append(ids, acme.IPIDs(n)...)
			continue
		}
		ids = append(ids, acme.DomainIDs(n)...)
	}
	return cl.AuthorizeOrder(t.Context(), ids)
}

// answer puts the answer of one challenge where it is looked for.
func (w *acmeWorld) answer(t testing.TB, cl *acme.Client, name string, ch *acme.Challenge) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch ch.Type {
	case "http-01":
		text, err := cl.HTTP01ChallengeResponse(ch.Token)
		if err != nil {
			t.Fatal(err)
		}
		w.files[cl.HTTP01ChallengePath(ch.Token)] = text
	case "dns-01":
		text, err := cl.DNS01ChallengeRecord(ch.Token)
		if err != nil {
			t.Fatal(err)
		}
		w.txt["_acme-challenge."+name] = []string{"noise", text}
	case "tls-alpn-01":
		cert, err := cl.TLSALPN01ChallengeCert(ch.Token, name)
		if err != nil {
			t.Fatal(err)
		}
		w.cert = &cert
	}
}

// prove answers a challenge of the kind for every name of an order.
func (w *acmeWorld) prove(t testing.TB, cl *acme.Client, o *acme.Order, kind string) {
	t.Helper()
	for _, url := range o.AuthzURLs {
		az, err := cl.GetAuthorization(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(az.Challenges, func(c *acme.Challenge) bool { return c.Type == kind })
		if i < 0 {
			t.Fatalf("no %s for %s", kind, az.Identifier.Value)
		}
		w.answer(t, cl, az.Identifier.Value, az.Challenges[i])
		if _, err := cl.Accept(t.Context(), az.Challenges[i]); err != nil {
			t.Fatal(err)
		}
		if _, err := cl.WaitAuthorization(t.Context(), url); err != nil {
			t.Fatalf("%s for %s: %v", kind, az.Identifier.Value, err)
		}
	}
}

func acmeCSR(t testing.TB, key crypto.Signer, cn string, names ...string) []byte {
	t.Helper()
	req := &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			req.IPAddresses = append(req.IPAddresses, ip)
			continue
		}
		req.DNSNames = append(req.DNSNames, n)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// proven is an order whose challenges are answered.
func (w *acmeWorld) proven(t testing.TB, cl *acme.Client, kind string, names ...string) *acme.Order {
	t.Helper()
	o, err := order(t, cl, names...)
	if err != nil {
		t.Fatal(err)
	}
	w.prove(t, cl, o, kind)
	return o
}

// obtain goes the whole way, from order to certificate.
func (w *acmeWorld) obtain(t testing.TB, cl *acme.Client, kind string, key crypto.Signer, names ...string) *tls.Certificate {
	t.Helper()
	o, err := cl.WaitOrder(t.Context(), w.proven(t, cl, kind, names...).URI)
	if err != nil {
		t.Fatal(err)
	}
	ders, _, err := cl.CreateOrderCert(t.Context(), o.FinalizeURL, acmeCSR(t, key, names[0], names...), true)
	if err != nil {
		t.Fatalf("finalizing: %v", err)
	}
	leaf, err := x509.ParseCertificate(ders[0])
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: ders, Leaf: leaf, PrivateKey: key}
}

// refusedWith wants a problem of ACME of that type, and a part of its text.
func refusedWith(t testing.TB, err error, kind, text string) {
	t.Helper()
	var p *acme.Error
	if !errors.As(err, &p) || p.ProblemType != "urn:ietf:params:acme:error:"+kind || !strings.Contains(p.Detail, text) {
		t.Errorf("%v, want %s with %q", err, kind, text)
	}
}

// countRows looks past all code of ours.
func countRows(t testing.TB, dir string, tables ...string) int {
	t.Helper()
	n, err := counter(t, dir, tables...)()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func counter(t testing.TB, dir string, tables ...string) func() (int, error) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	text := `SELECT (SELECT count(*) FROM ` + strings.Join(tables, `) + (SELECT count(*) FROM `) + `)`
	ctx := context.WithoutCancel(t.Context())
	return func() (n int, err error) {
		err = db.QueryRowContext(ctx, text).Scan(&n)
		return n, err
	}
}
