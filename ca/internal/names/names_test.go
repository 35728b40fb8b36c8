package names_test

import (
	"crypto/x509"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/names"
)

func TestCanonical(t *testing.T) {
	label := strings.Repeat("a", 63)
	for text, want := range map[string]string{
		"Ingester":                   "ingester",
		"storage_element.artstore":   "storage_element.artstore",
		"0:0:0:0:0:0:0:1":            "::1",
		"::ffff:10.0.0.1":            "10.0.0.1",
		"spiffe://artstore/ingester": "spiffe://artstore/ingester",
		label + ".example":           label + ".example",
		"*.Example":                  "*.example",
		"xn--BCHER-kva.example":      "xn--bcher-kva.example",
		"a--b.xn--bcher-kva":         "a--b.xn--bcher-kva", // other hyphens are not refused
		"SPIFFE://ArtStore/Ingester": "spiffe://artstore/Ingester",
		// What follows has no canonical form.
		"":                        "",
		"*":                       "",
		"*.":                      "",
		"a*.example":              "",
		"*.*.example":             "",
		"a.*.example":             "",
		"*.10.0.0.1":              "",
		"10.0.0.256":              "",
		"010.0.0.1":               "",
		"bücher.example":          "",
		"xn--a.example":           "",
		"xn--abc-.example":        "", // of ASCII alone
		"xn--bcher_kva":           "",
		"spiffe://a/b?":           "",
		"spiffe://a_*/b":          "",
		"spiffe://bücher/b":       "",
		"spiffe://xn--a/b":        "",
		"a..b":                    "",
		"a.":                      "",
		"-a":                      "",
		"a b":                     "",
		"fe80::1%eth0":            "",
		label + "a.example":       "",
		"spiffe://":               "",
		"spiffe://a/b?c":          "",
		"spiffe://u@a/b":          "",
		"spiffe://a/b#c":          "",
		strings.Repeat("a.", 127): "",
	} {
		got, err := names.Canonical(text)
		if (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

// What Set puts into a certificate is what OfRequest finds in a request.
func TestSetAndOfRequest(t *testing.T) {
	want := []string{"10.0.0.1", "::1", "ingester", "spiffe://artstore/ingester"}
	var leaf x509.Certificate
	if err := names.Set(&leaf, want); err != nil {
		t.Fatal(err)
	}
	got, err := names.OfRequest(signed(t, &x509.CertificateRequest{
		DNSNames: append(leaf.DNSNames, "INGESTER"), IPAddresses: leaf.IPAddresses, URIs: leaf.URIs,
	}))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if _, err := names.OfRequest(signed(t, &x509.CertificateRequest{EmailAddresses: []string{"a@b"}})); err == nil {
		t.Error("a request with an e-mail address has names")
	}
	u := &url.URL{Scheme: "spiffe"}
	if list, err := names.OfRequest(signed(t, &x509.CertificateRequest{IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}, URIs: []*url.URL{u}})); err == nil {
		t.Errorf("a URI without a host is one of %q", list)
	}
}

// The error for a name that has an A-label form says which it is.
func TestALabels(t *testing.T) {
	for text, want := range map[string]string{
		"bücher.example":            "write its A-label form xn--bcher-kva.example",
		"BÜCHER_1.a_b.пример":       "has no A-label form", // an underscore within a U-label
		"a_b.пример":                "write its A-label form a_b.xn--e1afmkfd",
		"*.пример":                  "write its A-label form xn--e1afmkfd",
		"a\u200db":                  "has no A-label form", // a joiner out of place
		"xn--bcher-kvb":             "is no A-label",
		strings.Repeat("ü", 10_000): "has no A-label form",
	} {
		if _, err := names.Canonical(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

func TestURLHost(t *testing.T) {
	for want, list := range map[string][]string{
		"ca.example": {"::1", "ca.example"},
		"127.0.0.1":  {"::1", "127.0.0.1"},
		"[::1]":      {"::1", "::2"},
	} {
		if got := names.URLHost(list); got != want {
			t.Errorf("%q: %q, want %q", list, got, want)
		}
	}
}

// FuzzCanonical: a canonical form is its own canonical form, whatever the text.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"Ingester", "::ffff:1.2.3.4", "spiffe://A/%2e%2e/b", "HTTPS://[::1]:443/", "a_b.c", "*.a", "xn--bcher-kva", "bücher.a", "\xff", "1.2.3.4.5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once, err := names.Canonical(text)
		if err != nil {
			return
		}
		if twice, err := names.Canonical(once); err != nil || twice != once {
			t.Errorf("%q: %q, then %q, %v", text, once, twice, err)
		}
	})
}
