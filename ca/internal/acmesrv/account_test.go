package acmesrv_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/acme"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// Accounts are bounded, end when they say so, and bind to nothing outside.
func TestACMEAccount(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	const path = "/acme/acme/new-account"
	r := acmetest.NewRaw(t, w.CA)
	if status, kind, _ := r.Post(path, r.Sign(path, map[string]any{"contact": []string{"mailto:" + strings.Repeat("a", 1000) + "@b.example"}}, nil)); kind != "malformed" {
		t.Errorf("a long contact: %d %s", status, kind)
	}
	if status, kind, _ := r.Post(path, r.Sign(path, map[string]any{"onlyReturnExisting": true}, nil)); kind != "accountDoesNotExist" {
		t.Errorf("an account that is not there: %d %s", status, kind)
	}
	r.Register()
	again := *r
	again.KID = ""
	if status, _, resp := again.Post(path, again.Sign(path, map[string]any{}, nil)); status != http.StatusOK || resp.Header.Get("Location") != r.KID {
		t.Errorf("the account of a known key: %d %s", status, resp.Header.Get("Location"))
	}
	own := strings.TrimPrefix(r.KID, r.URL)
	if status, kind, _ := r.Post(own, r.Sign(own, map[string]any{"contact": []string{"mailto:" + strings.Repeat("a", 1000) + "@b.example"}}, nil)); kind != "malformed" {
		t.Errorf("a long new contact: %d %s", status, kind)
	}
	if status, kind, _ := r.Post("/acme/acme/key-change", r.Sign("/acme/acme/key-change", map[string]any{}, nil)); status != http.StatusBadRequest || kind != "malformed" {
		t.Errorf("key-change: %d %s", status, kind)
	}
	if status, _, resp := r.Post(own+"/orders", r.Sign(own+"/orders", "", nil)); status != http.StatusOK {
		t.Errorf("the list of orders: %d %v", status, resp.Status)
	}
	if status, kind, _ := r.Post(own, r.Sign(own, map[string]any{"status": "deactivated"}, nil)); status != http.StatusOK {
		t.Fatalf("deactivating: %d %s", status, kind)
	}
	if status, kind, _ := r.Post(own, r.Sign(own, "", nil)); kind != "unauthorized" {
		t.Errorf("a deactivated account: %d %s", status, kind)
	}
}

// Asking for nonces leaves nothing behind.
func TestACMENoncesAreFree(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	r := acmetest.NewRaw(t, w.CA)
	first := r.Nonce() // makes the key
	before := acmetest.CountRows(t, w.Dir, append(acmeTables, "secrets")...)
	seen := map[string]bool{first: true}
	for range 500 {
		n := r.Nonce()
		if seen[n] {
			t.Fatal("a nonce came twice")
		}
		seen[n] = true
	}
	if n := acmetest.CountRows(t, w.Dir, append(acmeTables, "secrets")...); n != before {
		t.Errorf("%d rows for 500 nonces", n-before)
	}
}

// An order goes on at another replica, also when the first one died after the
// commit and before its answer: there is one certificate, and the client gets it.
func TestACMEReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Run("sqlite", func(t *testing.T) { acmeReplicas(t, "") })
	t.Run("postgres", func(t *testing.T) { acmeReplicas(t, postgres.Database(t)) })
}

func acmeReplicas(t *testing.T, database string) {
	var serving atomic.Pointer[http.Handler]
	var lose atomic.Bool
	w := acmetest.Start(t, catest.Options{Database: database, Wrap: func(h http.Handler) http.Handler {
		serving.Store(&h)
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if lose.Load() && strings.HasSuffix(r.URL.Path, "/finalize") {
				(*serving.Load()).ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			(*serving.Load()).ServeHTTP(rw, r)
		})
	}})
	second, err := ca.Open(t.Context(), ca.Options{Dir: w.Dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = second.Close() })
	h2, h1 := second.Handler(), *serving.Load()

	cl := w.Account(t)
	o, err := acmetest.Order(t, cl, "web.example")
	if err != nil {
		t.Fatal(err)
	}
	serving.Store(&h2)
	w.Prove(t, cl, o, "dns-01")
	lose.Store(true)
	key := testpki.Key(t)
	if _, _, err := cl.CreateOrderCert(t.Context(), o.FinalizeURL, acmetest.Request(t, key, "", "web.example"), false); err == nil {
		t.Fatal("the answer should have been lost")
	}
	lose.Store(false)
	serving.Store(&h1)
	if o, err = cl.WaitOrder(t.Context(), o.URI); err != nil || o.Status != acme.StatusValid {
		t.Fatalf("the order after the loss: %+v, %v", o, err)
	}
	ders, err := cl.FetchCert(t.Context(), o.CertURL, true)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(ders[0])
	if err != nil || !key.Public().(*ecdsa.PublicKey).Equal(leaf.PublicKey) {
		t.Errorf("a certificate for another key; %v", err)
	}
	if n := len(listAll(t, w.CA)); n != 2 { // with the authority's own
		t.Errorf("%d certificates for one order", n-1)
	}
	w.Check(t)
}
