package main

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// FuzzTokenOrder checks that a --token is refused, or names a service and a file and, put together
// again, is the text that it was read from.
func FuzzTokenOrder(f *testing.F) {
	f.Add("ingester=/data/token")
	f.Add("storage-element:storage-element-01,::1,127.0.0.1=a=b")
	f.Add("ingester:=x")
	f.Add("=x")
	f.Add("ingester=")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := parseTokenRequest(text)
		if err != nil {
			return
		}
		again := o.service
		if o.names != nil {
			again += ":" + strings.Join(o.names, ",")
		}
		if again += "=" + o.path; again != text || o.service == "" || o.path == "" {
			t.Errorf("%q was read as %+v", text, o)
		}
	})
}

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
