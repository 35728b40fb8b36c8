package enroll_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/rotation/status"
)

// TestForgottenIsKept expects that a certificate that a list has named stays refused
// when the authority has forgotten it, over a restart and without the authority, and is
// dropped when it has ended.
func TestForgottenIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		src := w.source()
		stop := w.watch(src)
		time.Sleep(20 * time.Minute)
		path := filepath.Join(w.cfg.Dir, "crl.kept")
		w.ca.revoke(w.last().Certificate.Leaf) // any will do
		end := w.last().Certificate.Leaf.NotAfter
		time.Sleep(11 * time.Minute)
		if st := src.Status(); st.RevokedSerials != 1 || st.RevokedKept != 0 {
			t.Fatalf("status %+v", st)
		}
		w.ca.forget()
		time.Sleep(11 * time.Minute)
		if st := src.Status(); st.RevokedSerials != 0 || st.RevokedKept != 1 || len(w.last().Kept) == 0 {
			t.Errorf("status %+v, %d bytes kept", st, len(w.last().Kept))
		}
		if !strings.Contains(w.log.String(), `level=ERROR msg="the authority's lists no longer name revoked certificates, which stay refused here" serials=1`) {
			t.Errorf("not told:\n%s", w.log.String())
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
		stop()
		w.check()
		w.net.setDown(true)
		before := w.count()
		stop = w.watch(w.source())
		if w.count() == before || len(w.last().Kept) == 0 {
			t.Error("a restart forgot what was kept")
		}
		stop()
		copied := t.TempDir()
		if err := enroll.WriteFiles(copied, w.last()); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(filepath.Join(copied, "crl.kept")); err != nil || string(data) != string(w.last().Kept) {
			t.Errorf("a copy has %q: %v", data, err)
		}
		w.net.setDown(false)
		again := w.source()
		stop = w.watch(again)
		time.Sleep(time.Until(end) + listEvery) // the next list comes after the end
		if st := again.Status(); st.RevokedKept != 0 || len(w.last().Kept) != 0 {
			t.Errorf("after the end: %+v", st)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file of what is kept: %v", err)
		}
		stop()
		w.check()
	})
}

// TestEnrolmentInheritsWhatIsRevoked expects that a new enrolment, after a refused or
// expired certificate, keeps the revoked certificates of its predecessor.
func TestEnrolmentInheritsWhatIsRevoked(t *testing.T) {
	a, url := listen(t)
	cfg := enroll.Config{URL: url, Dir: t.TempDir(), Token: once(a.token("svc", "svc"))}
	first, err := enroll.Issue(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	a.revoke(first.Certificate.Leaf)
	if m, err := enroll.Renew(t.Context(), cfg); err != nil || !isRevoked(m, first.Certificate.Leaf) {
		t.Fatalf("no list: %v", err)
	}
	a.forget()
	time.Sleep(1100 * time.Millisecond) // lists have whole seconds
	kept, err := enroll.Renew(t.Context(), cfg)
	if err != nil || len(kept.Kept) == 0 || isRevoked(kept, first.Certificate.Leaf) {
		t.Fatalf("%d bytes kept: %v", len(kept.Kept), err)
	}
	cfg.Token = once(a.token("svc", "svc"))
	if m, err := enroll.Issue(t.Context(), cfg); err != nil || string(m.Kept) != string(kept.Kept) || len(m.Revoked) != 1 {
		t.Errorf("after another enrolment %d bytes are kept beside %d lists: %v", len(m.Kept), len(m.Revoked), err)
	}
}

// forgetful answers /revoked, once it is told to, with a newer list without entries,
// like an authority that has lost its record.
type forgetful struct {
	next   http.Handler
	issuer *x509.Certificate
	key    crypto.Signer
	lost   atomic.Bool
}

func (f *forgetful) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !f.lost.Load() || !strings.HasSuffix(r.URL.Path, stepapi.PathRevoked) {
		f.next.ServeHTTP(w, r)
		return
	}
	now := time.Now()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(now.UnixMicro()), ThisUpdate: now.Add(time.Second), NextUpdate: now.Add(24 * time.Hour),
	}, f.issuer, f.key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(stepapi.RevokedResponse{Lists: []stepapi.RevokedList{{
		Issuer: string(pemfile.EncodeCertificates([]*x509.Certificate{f.issuer})),
		CRL:    string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})),
	}}})
}

// open reads the issuing certificate and its key from the state directory.
func (f *forgetful) open(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "certs", "intermediate_ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	issuers, err := pemfile.Certificates(data)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "secrets", "*.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if key, err := pemfile.PrivateKey(data); err == nil && certs.Fits(issuers[0], key) {
			f.issuer, f.key = issuers[0], key
			return
		}
	}
	t.Fatal("the key of the issuer is not in the state directory")
}

// TestRealPeerNeverUnrevokes lets a real authority revoke a certificate, which a peer
// then refuses. Then the authority serves a newer list without entries. The peer still
// refuses, after a restart too.
func TestRealPeerNeverUnrevokes(t *testing.T) {
	t.Parallel()
	f := &forgetful{}
	authority := catest.Start(t, catest.Options{Wrap: func(next http.Handler) http.Handler {
		f.next = next
		return f
	}})
	f.open(t, authority.Dir)
	ctx := t.Context()
	cfg := enroll.Config{URL: authority.URL, Dir: t.TempDir(), Token: once(authority.Token(t, "storage-element")), TrustRefresh: 200 * time.Millisecond}
	victim, err := enroll.Issue(ctx, enroll.Config{URL: authority.URL, InMemory: true, Token: once(authority.Token(t, "ingester"))})
	if err != nil {
		t.Fatal(err)
	}
	start := func() (*rotation.Identity, string) {
		src, err := enroll.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		id, err := rotation.Open(ctx, rotation.Config{Source: src})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = id.Close() })
		server, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewUnstartedServer(server.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		srv.Listener = server.Listener(srv.Listener)
		srv.Start()
		t.Cleanup(srv.Close)
		return id, srv.Listener.Addr().String()
	}
	admitted := func(addr string) bool {
		t.Helper()
		client, err := rotation.Open(ctx, rotation.Config{Source: rotation.Static(victim)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		transport, err := client.Transport(rotation.TransportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Get("https://" + addr)
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}
	await := func(id *rotation.Identity, what string, ok func(status.Identity) bool) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for !ok(id.Status()) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not seen; status %+v", what, id.Status())
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	id, addr := start()
	await(id, "the lists of intermediate and root", func(st status.Identity) bool { return st.RevokedLists == 2 })
	if !admitted(addr) {
		t.Fatal("a good peer is refused")
	}
	authority.Revoke(t, victim.Certificate.Leaf.SerialNumber.String())
	await(id, "the revocation", func(st status.Identity) bool { return st.RevokedSerials == 1 })
	if admitted(addr) {
		t.Fatal("a revoked peer is admitted")
	}
	f.lost.Store(true)
	await(id, "the empty list", func(st status.Identity) bool { return st.RevokedSerials == 0 && st.RevokedKept == 1 })
	if admitted(addr) {
		t.Error("the revoked peer is admitted after the authority forgot it")
	}
	if err := id.Close(); err != nil {
		t.Error(err)
	}
	id, addr = start()
	if admitted(addr) {
		t.Error("the revoked peer is admitted after a restart")
	}
	at := id.Status().RevokedAt
	await(id, "the next empty list", func(st status.Identity) bool { return st.RevokedAt.After(at) })
	if st := id.Status(); st.RevokedKept != 1 || admitted(addr) {
		t.Errorf("after a restart and the next list: %+v", st)
	}
}

// TestRetiredListIsDropped expects that the list of an issuer whose last certificate has
// ended is dropped before it is out of date, so that the service stays ready.
func TestRetiredListIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		src := w.source()
		stop := w.watch(src)
		time.Sleep(20 * time.Minute)
		w.ca.activate(t)
		time.Sleep(2 * time.Hour)
		if st := src.Status(); st.RevokedLists != 2 {
			t.Fatalf("%d lists", st.RevokedLists)
		}
		w.ca.retire()
		for range 30 {
			time.Sleep(time.Hour)
			if err := src.Check(); err != nil {
				t.Fatal(err)
			}
		}
		if st := src.Status(); st.RevokedLists != 1 {
			t.Errorf("%d lists", st.RevokedLists)
		}
		stop()
		w.check()
	})
}
