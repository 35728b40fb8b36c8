package acmesrv_test

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// What a profile does not give is refused with the order, before anybody is asked
// for a proof and before a row is written.
func TestACMEOrderRefusals(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
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
		_, err := acmetest.Order(t, cl, tc.names...)
		acmetest.RefusedWith(t, err, "rejectedIdentifier", tc.text)
	}
	if _, err := acmetest.Order(t, cl, "192.0.2.7"); err != nil {
		t.Errorf("an address of the profile: %v", err)
	}
	if _, err := cl.AuthorizeOrder(t.Context(), acme.DomainIDs("web.example"), acme.WithOrderNotAfter(time.Now().Add(1000*time.Hour))); err == nil {
		t.Error("a life longer than the profile's was accepted")
	}
	if _, err := cl.AuthorizeOrder(t.Context(), []acme.AuthzID{{Type: "permanent-identifier", Value: "x"}}); err == nil {
		t.Error("a permanent identifier was accepted")
	}
	if n := acmetest.CountRows(t, w.Dir, "acme_orders"); n != 1 {
		t.Errorf("%d orders stored, want the good one", n)
	}
	if w.Visits() != 0 {
		t.Error("the authority visited a name that nobody had proven anything for")
	}
}

// A request to finalize must fit its order; an order buys one certificate.
func TestACMEFinalizeRefusals(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl, stranger := w.Account(t), w.Account(t)
	o, err := acmetest.Order(t, cl, "web.example")
	if err != nil {
		t.Fatal(err)
	}
	finalize := func(by *acme.Client, csr []byte) error {
		_, _, err := by.CreateOrderCert(t.Context(), o.FinalizeURL, csr, false)
		return err
	}
	key := testpki.Key(t)
	acmetest.RefusedWith(t, finalize(cl, acmetest.Request(t, key, "", "web.example")), "orderNotReady", "")
	w.Prove(t, cl, o, "http-01")
	acmetest.RefusedWith(t, finalize(stranger, acmetest.Request(t, key, "", "web.example")), "unauthorized", "another account")
	acmetest.RefusedWith(t, finalize(cl, acmetest.Request(t, key, "", "web.example", "api.example")), "badCSR", "")
	acmetest.RefusedWith(t, finalize(cl, acmetest.Request(t, key, "evil.example", "web.example")), "badCSR", "")
	acmetest.RefusedWith(t, finalize(cl, []byte("no request")), "badCSR", "")
	acmetest.RefusedWith(t, finalize(cl, acmetest.OtherNamed(t, "web.example")), "badCSR", "an otherName")
	broken := acmetest.Request(t, key, "", "web.example")
	broken[len(broken)-1] ^= 1
	acmetest.RefusedWith(t, finalize(cl, broken), "badCSR", "its signature is wrong")
	if len(listAll(t, w.CA)) != 1 { // the authority's own
		t.Fatal("a certificate was issued")
	}
	if err := finalize(cl, acmetest.Request(t, key, "", "web.example")); err != nil {
		t.Fatalf("a good request: %v", err)
	}
	if err := finalize(cl, acmetest.Request(t, testpki.Key(t), "", "web.example")); err != nil {
		t.Errorf("again: %v", err)
	}
	if n := len(listAll(t, w.CA)); n != 2 {
		t.Errorf("%d certificates for one order", n-1)
	}
	// The profile decides on keys.
	o2, err := acmetest.Order(t, cl, "other.example")
	if err != nil {
		t.Fatal(err)
	}
	w.Prove(t, cl, o2, "dns-01")
	_, _, err = cl.CreateOrderCert(t.Context(), o2.FinalizeURL, acmetest.Request(t, key, "", "other.example"), false)
	acmetest.RefusedWith(t, err, "badCSR", "key type")
	w.Check(t)
}

// A challenge that is not answered right ends its order at once.
func TestACMEChallengeFails(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
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
			o, err := acmetest.Order(t, cl, "web.example")
			if err != nil {
				t.Fatal(err)
			}
			az, err := cl.GetAuthorization(t.Context(), o.AuthzURLs[0])
			if err != nil {
				t.Fatal(err)
			}
			ch := az.Challenges[slices.IndexFunc(az.Challenges, func(c *acme.Challenge) bool { return c.Type == tc.kind })]
			w.Answer(t, cl, "elsewhere.example", ch)
			path := cl.HTTP01ChallengePath(ch.Token)
			right := w.File(path)
			w.SetFile(path, tc.content)
			if tc.content != "" {
				w.SetFile("/elsewhere", right)
			}
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
