package acmesrv_test

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// Payloads with a valid signature and without a sensible content.
func TestACMEPayloads(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	r := acmetest.NewRaw(t, w.CA)
	r.Register()
	root := base64.RawURLEncoding.EncodeToString(w.Roots()[0].Raw)
	for _, tc := range []struct {
		path    string
		payload any
		kind    string
	}{
		{"order/x/finalize", "[]", "malformed"},
		{"order/x/finalize", map[string]string{"csr": "!"}, "malformed"},
		{"order/x/finalize", map[string]string{"csr": base64.RawURLEncoding.EncodeToString(acmetest.Request(t, testpki.Key(t), "", "web.example"))}, "malformed"},
		{"revoke-cert", "[]", "malformed"},
		{"revoke-cert", map[string]any{"certificate": root, "reason": 7}, "badRevocationReason"},
		{"revoke-cert", map[string]any{"certificate": "!"}, "malformed"},
		{"revoke-cert", map[string]any{"certificate": "AAAA"}, "malformed"},
		{"revoke-cert", map[string]any{"certificate": root}, "unauthorized"},
		{"new-order", "[]", "malformed"},
		{"new-order", map[string]any{"identifiers": []any{map[string]string{"type": "ip", "value": "web.example"}}}, "rejectedIdentifier"},
		{"new-order", map[string]any{"identifiers": []any{map[string]string{"type": "dns", "value": "192.0.2.7"}}}, "rejectedIdentifier"},
	} {
		path := "/acme/acme/" + tc.path
		if status, kind, _ := r.Post(path, r.Sign(path, tc.payload, nil)); kind != tc.kind || status >= 500 {
			t.Errorf("%s %v: %d %s, want %s", tc.path, tc.payload, status, kind, tc.kind)
		}
	}
	w.Check(t)
}

// A client may ask for less time than the profile gives.
func TestACMENotAfter(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
	end := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second)
	o, err := cl.AuthorizeOrder(t.Context(), acme.DomainIDs("web.example"), acme.WithOrderNotAfter(end))
	if err != nil {
		t.Fatal(err)
	}
	w.Prove(t, cl, o, "http-01")
	ders, _, err := cl.CreateOrderCert(t.Context(), o.FinalizeURL, acmetest.Request(t, testpki.Key(t), "", "web.example"), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range listAll(t, w.CA) {
		if bytes.Equal(e.DER, ders[0]) && e.NotAfter.Sub(end).Abs() > 2*time.Second {
			t.Errorf("it ends at %s, asked was %s", e.NotAfter, end)
		}
	}
	w.Check(t)
}

// The profile of today decides, also for an order of yesterday.
func TestACMEProfileOfToday(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
	o := w.Proven(t, cl, "http-01", "web.example")
	w.Rewrite(t, func(b []byte) []byte { return bytes.Replace(b, []byte("web.example"), []byte("www.example"), 1) })
	if err := w.Authority.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err := cl.CreateOrderCert(t.Context(), o.FinalizeURL, acmetest.Request(t, testpki.Key(t), "", "web.example"), false)
	acmetest.RefusedWith(t, err, "rejectedIdentifier", `profile "web" does not have all of`)
}

// Of many requests at once to finalize one order, with many keys, one wins.
func TestACMEFinalizeOnce(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
	o := w.Proven(t, cl, "http-01", "web.example")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			// Who loses is told so, or gets the certificate of the winner.
			_, _, _ = cl.CreateOrderCert(t.Context(), o.FinalizeURL, acmetest.Request(t, testpki.Key(t), "", "web.example"), false)
		})
	}
	wg.Wait()
	if n := len(listAll(t, w.CA)); n != 2 { // with the authority's own
		t.Errorf("%d certificates for one order", n-1)
	}
	w.Check(t)
}

// Revoking a second time is alreadyRevoked, and changes nothing.
func TestACMERevokeTwice(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
	got := w.Obtain(t, cl, "dns-01", "web.example")
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { errs[i] = cl.RevokeCert(t.Context(), nil, got.Certificate[0], acme.CRLReasonUnspecified) })
	}
	wg.Wait()
	for _, err := range errs { // the client takes alreadyRevoked for success
		if err != nil {
			t.Error(err)
		}
	}
	r := acmetest.NewRaw(t, w.CA)
	r.Key = got.PrivateKey.(crypto.Signer)
	const path = "/acme/acme/revoke-cert"
	status, kind, _ := r.Post(path, r.Sign(path, map[string]any{"certificate": base64.RawURLEncoding.EncodeToString(got.Certificate[0])}, nil))
	if status != http.StatusBadRequest || kind != "alreadyRevoked" {
		t.Errorf("%d %s", status, kind)
	}
	w.Check(t)
}
