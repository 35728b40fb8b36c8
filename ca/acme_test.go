package ca_test

import (
	"crypto"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// Each challenge leads to a certificate that the profile has, and that is in the
// record like all others: it renews, and it goes when it is revoked.
func TestACME(t *testing.T) {
	w := startACME(t)
	cl := w.account(t)
	for _, kind := range []string{"http-01", "dns-01", "tls-alpn-01"} {
		t.Run(kind, func(t *testing.T) {
			got := w.obtain(t, cl, kind, newKey(t), "web.example", "api.example")
			entry, err := openRecord(t, w.CA).Show(t.Context(), got.Leaf.SerialNumber.String())
			if err != nil {
				t.Fatal(err)
			}
			if entry.Service != "web" || entry.Provisioner != "acme" || !strings.HasPrefix(entry.Caller, "acme ") || !slices.Equal(entry.Names, []string{"api.example", "web.example"}) {
				t.Errorf("recorded as %s by %s of %s for %q", entry.Service, entry.Caller, entry.Provisioner, entry.Names)
			}
			if cn := got.Leaf.Subject.CommonName; cn != "" {
				t.Errorf("common name %q: a client would order it when it renews", cn)
			}
			if d := time.Until(got.Leaf.NotAfter); d < 23*time.Hour || d > 24*time.Hour {
				t.Errorf("it lives for %s, the profile says 24h", d)
			}
			status, body := newClient(t, w.CA, got).do("POST", "/renew", nil)
			if status != http.StatusCreated {
				t.Errorf("renewing over mTLS: %d %s", status, body)
			}
			w.Check(t)
		})
	}
}

// The account that ordered may revoke, and the key of the certificate; nobody else.
func TestACMERevoke(t *testing.T) {
	w := startACME(t)
	cl, stranger := w.account(t), w.account(t)
	one := w.obtain(t, cl, "http-01", newKey(t), "web.example")
	two := w.obtain(t, cl, "http-01", newKey(t), "web.example")
	refusedWith(t, stranger.RevokeCert(t.Context(), nil, one.Certificate[0], acme.CRLReasonUnspecified), "unauthorized", "did not order")
	refusedWith(t, stranger.RevokeCert(t.Context(), newKey(t), one.Certificate[0], acme.CRLReasonUnspecified), "unauthorized", "not signed by the key")
	refusedWith(t, cl.RevokeCert(t.Context(), nil, one.Certificate[0], acme.CRLReasonCertificateHold), "badRevocationReason", "")
	refusedWith(t, cl.RevokeCert(t.Context(), nil, w.Roots()[0].Raw, acme.CRLReasonUnspecified), "unauthorized", "not in the record")
	if err := cl.RevokeCert(t.Context(), nil, one.Certificate[0], acme.CRLReasonKeyCompromise); err != nil {
		t.Errorf("by the account: %v", err)
	}
	if err := stranger.RevokeCert(t.Context(), two.PrivateKey.(crypto.Signer), two.Certificate[0], acme.CRLReasonSuperseded); err != nil {
		t.Errorf("by the key: %v", err)
	}
	for serial, reason := range map[string]int{one.Leaf.SerialNumber.String(): 1, two.Leaf.SerialNumber.String(): 4} {
		entry, err := openRecord(t, w.CA).Show(t.Context(), serial)
		if err != nil || entry.Revocation == nil || entry.Revocation.Reason != reason {
			t.Errorf("%s is not revoked for reason %d: %+v, %v", serial, reason, entry.Revocation, err)
		}
	}
	if status, _ := newClient(t, w.CA, one).do("POST", "/renew", nil); status != http.StatusUnauthorized {
		t.Errorf("renewing a revoked certificate: %d", status)
	}
	w.Check(t)
}

// What a profile does not give is refused with the order, before anybody is asked
// for a proof and before a row is written.
func TestACMEOrderRefusals(t *testing.T) {
	w := startACME(t)
	cl := w.account(t)
	for _, tc := range []struct {
		text  string
		names []string
	}{
		{"no profile with acme: true has all of", []string{"evil.example"}},
		{"no profile with acme: true has all of", []string{"db.example"}},
		{"no profile with acme: true has all of", []string{"web.example", "other.example"}},
		{"names of more than one service: other, third", []string{"shared.example"}},
		{"is the machine of the authority", []string{"web.example", "localhost"}},
		{"is the machine of the authority", []string{"127.0.0.1"}},
		{"no profile with acme: true has all of", []string{"*.web.example"}},
		{"stands there twice", []string{"web.example", "WEB.example"}},
	} {
		_, err := order(t, cl, tc.names...)
		refusedWith(t, err, "rejectedIdentifier", tc.text)
	}
	if _, err := order(t, cl, "192.0.2.7"); err != nil {
		t.Errorf("an address of the profile: %v", err)
	}
	if _, err := cl.AuthorizeOrder(t.Context(), acme.DomainIDs("web.example"), acme.WithOrderNotAfter(time.Now().Add(1000*time.Hour))); err == nil {
		t.Error("a life longer than the profile's was accepted")
	}
	if _, err := cl.AuthorizeOrder(t.Context(), []acme.AuthzID{{Type: "permanent-identifier", Value: "x"}}); err == nil {
		t.Error("a permanent identifier was accepted")
	}
	if n := countRows(t, w.Dir, "acme_orders"); n != 1 {
		t.Errorf("%d orders stored, want the good one", n)
	}
	if w.visited != 0 {
		t.Error("the authority visited a name that nobody had proven anything for")
	}
}

// A request to finalize must fit its order; an order buys one certificate.
func TestACMEFinalizeRefusals(t *testing.T) {
	w := startACME(t)
	cl, stranger := w.account(t), w.account(t)
	o, err := order(t, cl, "web.example")
	if err != nil {
		t.Fatal(err)
	}
	finalize := func(by *acme.Client, csr []byte) error {
		_, _, err := by.CreateOrderCert(t.Context(), o.FinalizeURL, csr, false)
		return err
	}
	key := newKey(t)
	refusedWith(t, finalize(cl, acmeCSR(t, key, "", "web.example")), "orderNotReady", "")
	w.prove(t, cl, o, "http-01")
	refusedWith(t, finalize(stranger, acmeCSR(t, key, "", "web.example")), "unauthorized", "another account")
	refusedWith(t, finalize(cl, acmeCSR(t, key, "", "web.example", "api.example")), "badCSR", "")
	refusedWith(t, finalize(cl, acmeCSR(t, key, "evil.example", "web.example")), "badCSR", "")
	refusedWith(t, finalize(cl, []byte("no request")), "badCSR", "")
	refusedWith(t, finalize(cl, otherNamed(t, "web.example")), "badCSR", "an otherName")
	broken := acmeCSR(t, key, "", "web.example")
	broken[len(broken)-1] ^= 1
	refusedWith(t, finalize(cl, broken), "badCSR", "its signature is wrong")
	if len(listAll(t, w.CA)) != 1 { // the authority's own
		t.Fatal("a certificate was issued")
	}
	if err := finalize(cl, acmeCSR(t, key, "", "web.example")); err != nil {
		t.Fatalf("a good request: %v", err)
	}
	if err := finalize(cl, acmeCSR(t, newKey(t), "", "web.example")); err != nil {
		t.Errorf("again: %v", err)
	}
	if n := len(listAll(t, w.CA)); n != 2 {
		t.Errorf("%d certificates for one order", n-1)
	}
	// The profile decides on keys.
	o2, err := order(t, cl, "other.example")
	if err != nil {
		t.Fatal(err)
	}
	w.prove(t, cl, o2, "dns-01")
	_, _, err = cl.CreateOrderCert(t.Context(), o2.FinalizeURL, acmeCSR(t, key, "", "other.example"), false)
	refusedWith(t, err, "badCSR", "key type")
	w.Check(t)
}

// A challenge that is not answered right ends its order at once.
func TestACMEChallengeFails(t *testing.T) {
	w := startACME(t)
	cl := w.account(t)
	for _, tc := range []struct {
		name, kind, content string
	}{
		{"nothing there", "http-01", ""},
		{"another text", "http-01", "something else"},
		{"a redirect to where the right answer is", "http-01", "redirect /elsewhere"},
		{"no record", "dns-01", ""},
		{"no certificate", "tls-alpn-01", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, err := order(t, cl, "web.example")
			if err != nil {
				t.Fatal(err)
			}
			az, err := cl.GetAuthorization(t.Context(), o.AuthzURLs[0])
			if err != nil {
				t.Fatal(err)
			}
			ch := az.Challenges[slices.IndexFunc(az.Challenges, func(c *acme.Challenge) bool { return c.Type == tc.kind })]
			w.answer(t, cl, "elsewhere.example", ch)
			w.mu.Lock()
			right := w.files[cl.HTTP01ChallengePath(ch.Token)]
			delete(w.files, cl.HTTP01ChallengePath(ch.Token))
			if tc.content != "" {
				w.files[cl.HTTP01ChallengePath(ch.Token)], w.files["/elsewhere"] = tc.content, right
			}
			w.mu.Unlock()
			if _, err := cl.Accept(t.Context(), ch); err != nil {
				t.Fatal(err)
			}
			if _, err := cl.WaitAuthorization(t.Context(), o.AuthzURLs[0]); err == nil {
				t.Error("it was believed")
			}
			if _, err := cl.WaitOrder(t.Context(), o.URI); err == nil {
				t.Error("the order lives on")
			}
		})
	}
	w.Check(t)
}
