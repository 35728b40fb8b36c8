package rotation_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// elsewhere serves h under corp, to clients of ca.
func elsewhere(t testing.TB, ca, corp *testCA, h http.HandlerFunc) (rotation.Material, string) {
	t.Helper()
	m := corp.leaf(t, "svc", nil)
	foreign := m
	foreign.Roots = []*x509.Certificate{ca.root}
	conf, err := open(t, rotation.Static(foreign), 0).ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AllowNames("client")})
	must(t, err)
	return m, listen(t, conf, h)
}

func bundlePEM(roots ...*x509.Certificate) []byte { return pemfile.EncodeCertificates(roots) }

func openTrust(t testing.TB, src rotation.Source, log *slog.Logger) *rotation.Trust {
	t.Helper()
	trust, err := rotation.OpenTrust(t.Context(), rotation.Config{Source: src, Logger: log})
	must(t, err)
	t.Cleanup(func() { _ = trust.Close() })
	return trust
}

// TestTrustOfItsOwn expects that each transport uses its own bundle and no other, and
// shows the same certificate. A bundle that changes on disk takes effect.
func TestTrustOfItsOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			ca, corp, next := newCA(t, "ca"), newCA(t, "corp"), newCA(t, "next")
			hang := make(chan struct{})
			defer close(hang)
			_, foreign := elsewhere(t, ca, corp, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/hang" {
					_ = http.NewResponseController(w).Flush()
					<-hang
				}
				whoami(w, r)
			})
			_, _, home := serve(t, ca, whoami)
			m := ca.leaf(t, "client", nil)
			id := open(t, newPushed(m), time.Second)
			path := filepath.Join(t.TempDir(), "corp.crt")
			put(t, path, bundlePEM(corp.root))
			var log logs
			trust := openTrust(t, files.Source(files.Set{CA: path}), log.logger())
			out := transport(t, id, rotation.TransportOptions{Trust: trust, HTTP1Only: !h2})
			in := transport(t, id, rotation.TransportOptions{HTTP1Only: !h2})

			if h := mustGet(t, out, foreign); h.Get("Serial") != m.Certificate.Leaf.SerialNumber.String() || h.Get("Proto") != name {
				t.Errorf("the server saw %v", h)
			}
			mustGet(t, in, home)
			var unknown x509.UnknownAuthorityError
			if _, err := get(t, out, home); !errors.As(err, &unknown) {
				t.Errorf("the own bundle is believed beside Trust: %v", err)
			}
			if _, err := get(t, in, foreign); !errors.As(err, &unknown) {
				t.Errorf("Trust is believed where it was not asked for: %v", err)
			}

			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+foreign+"/hang", nil)
			must(t, err)
			resp, err := out.RoundTrip(req)
			must(t, err)
			defer func() { _ = resp.Body.Close() }()
			put(t, path, bundlePEM(corp.root, next.root))
			waitFor(t, "the wider bundle", func() bool { return len(trust.Roots()) == 2 })
			mustGet(t, out, foreign)
			put(t, path, bundlePEM(next.root))
			waitFor(t, "the root to go", func() bool {
				roots := trust.Roots()
				return len(roots) == 1 && roots[0].Equal(next.root)
			})
			if _, err := get(t, out, foreign); !errors.As(err, &unknown) {
				t.Errorf("a root that was removed is believed: %v", err)
			}
			if _, err := io.ReadAll(resp.Body); err == nil {
				t.Error("a connection under the old root goes on after the grace")
			}
			waitFor(t, "the connections to end", func() bool { return rotation.Conns(out) == 0 })
			mustGet(t, in, home)
			if id.Current().Number() != 1 {
				t.Error("another bundle for one transport made a generation")
			}

			put(t, path, []byte("-----BEGIN CERTIFICATE-----\n"))
			waitFor(t, "the damage to be logged", func() bool { return strings.Contains(log.String(), "trust bundle not refreshed") })
			if st := trust.Status(); st.Roots != 1 || st.LastError == "" {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// TestTrustRevokes expects that the lists beside the bundle of a Trust count for its
// servers.
func TestTrustRevokes(t *testing.T) {
	ca, corp := newCA(t, "ca"), newCA(t, "corp")
	m, addr := elsewhere(t, ca, corp, whoami)
	id := open(t, newPushed(ca.leaf(t, "client", nil)), 0)
	src := newPushed(rotation.Material{Roots: []*x509.Certificate{corp.root}})
	trust := openTrust(t, src, slog.New(slog.DiscardHandler))
	tr := transport(t, id, rotation.TransportOptions{Trust: trust})
	c, err := tr.DialTLSContext(t.Context(), "tcp", addr)
	must(t, err)
	revoking := rotation.Material{Roots: []*x509.Certificate{corp.root}, Issuers: []*x509.Certificate{corp.inter}}
	src.mustPush(t, taking(revoking, corp.crl(t, 0, m)))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection to a revoked server is open: %v", err)
	}
	if _, err := get(t, tr, addr); !errors.Is(err, rotation.ErrRevoked) {
		t.Errorf("a revoked server: %v", err)
	}
	if err := src.push(rotation.Material{Roots: revoking.Roots}); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("the list was lost: %v", err)
	}
	if st := trust.Status(); st.RevokedLists != 1 || st.LastError == "" || trust.Check() != nil {
		t.Errorf("status %+v", st)
	}
	must(t, tr.Close())
}

// TestTrustOpens expects errors of OpenTrust that say what is wrong.
func TestTrustOpens(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "leaf.crt"), bundlePEM(newCA(t, "ca").leaf(t, "x", nil).Certificate.Leaf))
	for want, cfg := range map[string]rotation.Config{
		"Source is missing":  {},
		"no such file":       {Source: files.Source(files.Set{CA: filepath.Join(dir, "absent")})},
		"is no CA":           {Source: files.Source(files.Set{CA: filepath.Join(dir, "leaf.crt")})},
		"want Dir, Cert":     {Source: files.Source(files.Set{})},
		"the source stopped": {Source: stops{}},
	} {
		cfg.Logger = slog.New(slog.DiscardHandler)
		if _, err := rotation.OpenTrust(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := rotation.OpenTrust(ctx, rotation.Config{Source: silence{}}); !errors.Is(err, context.Canceled) {
		t.Errorf("a source that says nothing: %v", err)
	}
}

type stops struct{}

func (stops) Watch(context.Context, func(rotation.Material) error) error { return nil }

type silence struct{}

func (silence) Watch(ctx context.Context, _ func(rotation.Material) error) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestServerByName expects that ServerName counts for requests, raw connections and
// handshakes, resumed or not.
func TestServerByName(t *testing.T) {
	ca := newCA(t, "ca")
	id := open(t, rotation.Static(ca.leaf(t, "svc", func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = []string{"svc"}, nil
	})), 0)
	addr := listenServer(t, id, rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()}, whoami)
	client := open(t, rotation.Static(ca.leaf(t, "client", nil)), 0)
	for name, good := range map[string]bool{"": false, "svc": true, "SVC": true, "other": false, "10.0.0.1": false} {
		tr := transport(t, client, rotation.TransportOptions{ServerName: name})
		for i := range 2 {
			_, err := get(t, tr, addr)
			checkName(t, "GET", name, good, err)
			tr.CloseIdleConnections()
			c, err := tr.DialTLSContext(t.Context(), "tcp", addr)
			checkName(t, "dial", name, good, err)
			if err == nil {
				if resumed := c.(*tls.Conn).ConnectionState().DidResume; i > 0 && !resumed {
					t.Error("the second round does not resume")
				}
				must(t, c.Close())
			}
		}
	}
	for _, bad := range []string{"svc:443", "*.svc", "https://svc", " ", "[::1]"} {
		if _, err := client.Transport(rotation.TransportOptions{ServerName: bad}); err == nil || !strings.Contains(err.Error(), "ServerName") {
			t.Errorf("ServerName %q: %v", bad, err)
		}
	}
}

func checkName(t *testing.T, what, name string, good bool, err error) {
	t.Helper()
	if _, wrong := errors.AsType[x509.HostnameError](err); wrong == good || (err == nil) != good {
		t.Errorf("%s of %q: %v", what, name, err)
	}
}

// TestAuthorizeServer expects that AuthorizeServer is called in addition to the check of
// the name, for resumed connections too.
func TestAuthorizeServer(t *testing.T) {
	const spiffeID = "spiffe://artstore.example/storage"
	ca := newCA(t, "ca")
	server := ca.leaf(t, "svc", func(c *x509.Certificate) { c.URIs = append(c.URIs, mustURL(t, spiffeID)) })
	addr := listenServer(t, open(t, rotation.Static(server), 0), rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()}, whoami)
	client := open(t, rotation.Static(ca.leaf(t, "client", nil)), 0)

	if _, err := get(t, transport(t, client, rotation.TransportOptions{AuthorizeServer: rotation.AllowNames("spiffe://artstore.example/other")}), addr); !errors.Is(err, rotation.ErrPeerDenied) {
		t.Errorf("another SPIFFE ID: %v", err)
	}
	if _, err := get(t, transport(t, client, rotation.TransportOptions{AuthorizeServer: rotation.AllowNames(spiffeID), ServerName: "other"}), addr); err == nil {
		t.Error("AuthorizeServer takes the place of the name")
	}
	changingRules := newChangingRules(rotation.AllowNames(spiffeID))
	tr := transport(t, client, rotation.TransportOptions{AuthorizeServer: changingRules.authorize})
	mustGet(t, tr, addr)
	tr.CloseIdleConnections()
	if h := mustGet(t, tr, addr); h.Get("Resumed") != "true" || changingRules.asked.Load() != 2 {
		t.Errorf("resumed %s, asked %d times", h.Get("Resumed"), changingRules.asked.Load())
	}
	changingRules.set(rotation.AllowNames())
	tr.CloseIdleConnections()
	if _, err := get(t, tr, addr); !errors.Is(err, rotation.ErrPeerDenied) {
		t.Errorf("a resumed connection to a server that is denied now: %v", err)
	}
}

// changingRules is an Authorizer whose rules can be changed. It counts its calls.
type changingRules struct {
	now   atomic.Pointer[rotation.Authorizer]
	asked atomic.Int64
}

func newChangingRules(a rotation.Authorizer) *changingRules {
	m := &changingRules{}
	m.set(a)
	return m
}

func (m *changingRules) set(a rotation.Authorizer) { m.now.Store(&a) }

func (m *changingRules) authorize(cs tls.ConnectionState) error {
	m.asked.Add(1)
	return (*m.now.Load())(cs)
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	must(t, err)
	return u
}
