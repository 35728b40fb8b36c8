package acmesrv_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/ca/internal/ari"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// fetch sends a GET without any signature, and decodes the answer.
func fetch(t *testing.T, r *acmetest.Raw, url string, out any) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return resp
}

// window returns the renewal information of a certificate, which must be the same at the
// address in the directory and without ACME.
func window(t *testing.T, r *acmetest.Raw, leaf *x509.Certificate) ari.Window {
	t.Helper()
	var dir struct {
		RenewalInfo string `json:"renewalInfo"`
	}
	fetch(t, r, r.URL+"/acme/acme/directory", &dir)
	var info, plain ari.Info
	resp := fetch(t, r, dir.RenewalInfo+"/"+ari.Of(leaf).String(), &info)
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != http.StatusOK || err != nil || n < 60 || n > 6*3600 {
		t.Errorf("%s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	fetch(t, r, r.URL+"/renewal-info/"+ari.Of(leaf).String(), &plain)
	if plain != info || !info.Window.End.After(info.Window.Start) {
		t.Errorf("%+v, and without ACME %+v", info, plain)
	}
	return info.Window
}

// TestACMERenewalInfo: the window is that of the formula; an order to renew moves it, and so
// does a revocation. Names of no certificate are refused.
func TestACMERenewalInfo(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
	first, second := w.Obtain(t, cl, "http-01", "web.example"), w.Obtain(t, cl, "http-01", "api.example")
	r := acmetest.NewRaw(t, w.CA)
	from, to := lifetime.RenewalWindow(first.Leaf.NotBefore, first.Leaf.NotAfter)
	if got := window(t, r, first.Leaf); !got.Start.Equal(from) || !got.End.Equal(to) {
		t.Errorf("%+v, want %s to %s", got, from, to)
	}
	rec := openRecord(t, w.CA)
	given, err := rec.ForceRenewal(t.Context(), ca.RenewalOrder{Serial: first.Leaf.SerialNumber.String(), Within: "1m"})
	if err != nil {
		t.Fatal(err)
	}
	if got := window(t, r, first.Leaf); !got.Start.Equal(given.At) || !got.End.Equal(given.By) {
		t.Errorf("under an order: %+v, want %s to %s", got, given.At, given.By)
	}
	if got := window(t, r, second.Leaf); got.Start.Before(time.Now()) {
		t.Errorf("a certificate that the order is not for: %+v", got)
	}
	w.Revoke(t, second.Leaf.SerialNumber.String())
	if got := window(t, r, second.Leaf); got.Start.After(time.Now()) {
		t.Errorf("a revoked certificate: %+v", got)
	}
	again := w.Obtain(t, cl, "http-01", "web.example")
	if list, err := rec.Renewals(t.Context()); err != nil || len(list) != 1 || list[0].Renewed != 1 || len(list[0].Pending) != 0 {
		t.Errorf("after the client has ordered again: %+v %v", list, err)
	}
	if got := window(t, r, again.Leaf); got.Start.Before(time.Now()) {
		t.Errorf("the new certificate: %+v", got)
	}
	unknown := ari.Of(first.Leaf)
	unknown.Serial = "4711"
	foreign := ari.Of(first.Leaf)
	foreign.Issuer = "00" + foreign.Issuer[2:]
	for name, want := range map[string]int{unknown.String(): http.StatusNotFound, foreign.String(): http.StatusNotFound, "x": http.StatusBadRequest, "a.b.c": http.StatusBadRequest} {
		var p acmetest.Problem
		if resp := fetch(t, r, r.URL+"/acme/acme/renewal-info/"+name, &p); resp.StatusCode != want || !strings.HasSuffix(p.Type, ":malformed") {
			t.Errorf("%s: %s %+v", name, resp.Status, p)
		}
		if resp := fetch(t, r, r.URL+"/renewal-info/"+name, &p); resp.StatusCode != want {
			t.Errorf("%s without ACME: %s", name, resp.Status)
		}
	}
}

// TestACMEReplaces: an order says which certificate it replaces. It must be one of the same
// account and for one of the names, and only one order may have replaced it.
func TestACMEReplaces(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl, stranger := w.Account(t), w.Account(t)
	first := w.Obtain(t, cl, "http-01", "web.example")
	const path = "/acme/acme/new-order"
	order := func(by *acme.Client, replaces string, names ...string) (int, string, *http.Response) {
		t.Helper()
		r := acmetest.NewRaw(t, w.CA).As(by.Key, string(by.KID))
		payload := acmetest.OrderOf(names...)
		payload["replaces"] = replaces
		return r.Post(path, r.Sign(path, payload, nil))
	}
	name := ari.Of(first.Leaf).String()
	other := ari.Of(first.Leaf)
	other.Issuer = "00" + other.Issuer[2:]
	for what, tc := range map[string]struct {
		by       *acme.Client
		replaces string
		name     string
		want     string
	}{
		"no name of a certificate":       {cl, "x", "web.example", "malformed"},
		"the wrong issuer":               {cl, other.String(), "web.example", "malformed"},
		"other names":                    {cl, name, "api.example", "malformed"},
		"another account":                {stranger, name, "web.example", "unauthorized"},
		"a certificate that is not ours": {cl, ari.ID{Issuer: other.Issuer, Serial: "4711"}.String(), "web.example", "unauthorized"},
	} {
		if status, kind, _ := order(tc.by, tc.replaces, tc.name); status < 400 || kind != tc.want {
			t.Errorf("%s: %d %s, want %s", what, status, kind, tc.want)
		}
	}
	order(cl, name, "web.example") // a pending order does not count
	second := replaced(t, w, cl, name, order)
	if second.Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) == 0 {
		t.Error("the same certificate")
	}
	if status, kind, _ := order(cl, name, "web.example"); status != http.StatusConflict || kind != "alreadyReplaced" {
		t.Errorf("a second order for the same certificate: %d %s", status, kind)
	}
	if status, kind, _ := order(cl, ari.Of(second.Leaf).String(), "web.example"); status != http.StatusCreated {
		t.Errorf("an order for the new certificate: %d %s", status, kind)
	}
}

// replaced goes the whole way with an order that replaces a certificate.
func replaced(t *testing.T, w *acmetest.World, cl *acme.Client, name string, order func(*acme.Client, string, ...string) (int, string, *http.Response)) *tls.Certificate {
	t.Helper()
	status, kind, resp := order(cl, name, "web.example")
	if status != http.StatusCreated {
		t.Fatalf("%d %s", status, kind)
	}
	var shown struct{ Replaces string }
	if err := json.NewDecoder(resp.Body).Decode(&shown); err != nil || shown.Replaces != name {
		t.Errorf("the order replaces %q, %v", shown.Replaces, err)
	}
	o, err := cl.GetOrder(t.Context(), resp.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	w.Prove(t, cl, o, "http-01")
	key := testpki.Key(t)
	ders, _, err := cl.CreateOrderCert(t.Context(), o.FinalizeURL, acmetest.Request(t, key, "", "web.example"), true)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(ders[0])
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: ders, Leaf: leaf, PrivateKey: key}
}
