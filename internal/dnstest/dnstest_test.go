package dnstest_test

import (
	"context"
	"net"
	"slices"
	"testing"

	"github.com/artstore/artstore-pki/internal/dnstest"
)

func TestServe(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- dnstest.Serve(conn, func(name string) []string {
			if name == "_acme-challenge.storage.example" {
				return []string{"one", "two"}
			}
			return nil
		})
	}()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	if _, err := conn.WriteTo([]byte("noise"), conn.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if got, err := r.LookupHost(t.Context(), "any.example."); err != nil || !slices.Equal(got, []string{"127.0.0.1"}) {
		t.Errorf("host: %q, %v", got, err)
	}
	if got, err := r.LookupTXT(t.Context(), "_Acme-Challenge.storage.example."); err != nil || !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("TXT: %q, %v", got, err)
	}
	if got, err := r.LookupTXT(t.Context(), "storage.example."); err == nil {
		t.Errorf("TXT of a name without: %q", got)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
