package dev

import (
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
