package main

import (
	"net/http"
	"net/netip"
	"testing"
)

// FuzzLoopbackURL checks that net/http reads an accepted URL as a loopback address in cleartext,
// without credentials.
func FuzzLoopbackURL(f *testing.F) {
	f.Add("http://127.0.0.1:9090/readyz")
	f.Add("http://[::1]:9090/readyz")
	f.Add("http://127.0.0.1@192.0.2.1/")
	f.Add("http://127.0.0.1.example/")
	f.Add("http://[::ffff:127.0.0.1]/")
	f.Add("HTTP://127.1/")
	f.Fuzz(func(t *testing.T, text string) {
		if loopbackURL(text) != nil {
			return
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, text, nil)
		if err != nil {
			return // refused before anything is sent
		}
		ip, err := netip.ParseAddr(req.URL.Hostname())
		if err != nil || !ip.Unmap().IsLoopback() || req.URL.Scheme != "http" || req.URL.User != nil {
			t.Errorf("%q leads to %s", text, req.URL)
		}
	})
}
