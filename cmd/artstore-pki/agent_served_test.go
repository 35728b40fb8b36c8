//go:build !agent

package main

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAgentServed: what an agent has proved at a server is what the commands of the authority show,
// and before that there is neither a line nor a column.
func TestAgentServed(t *testing.T) {
	long(t, "the first report waits for the first refresh, which is spread over half a minute")
	t.Parallel()
	w := &killFixture{dir: t.TempDir()}
	w.program = selfAs(t, w.dir)
	w.ok(t, "init", "--dir", "ca", "--plain-keys", "--dns", "localhost", "--dns", "127.0.0.1")
	w.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "ca.url")
	w.ok(t, "token", "--dir", "ca", "--out", "token", "ingester")
	address := serveFiles(t, filepath.Join(w.dir, "id"))
	must(t, os.WriteFile(filepath.Join(w.dir, "agent.yaml"), []byte("ca_url: "+w.url(t, "ca.url")+"\nidentities:\n- {name: web, dir: "+w.dir+"/id, token_file: "+w.dir+
		"/token, serves: [{address: \""+address+"\"}]}\n"), 0o600))
	if before, _ := w.end(t, "list", "--dir", "ca"); strings.Contains(before, "SERVED") {
		t.Errorf("a column without a report:\n%s", before)
	}
	p := w.start(t, "agent", "--config", "agent.yaml")
	for limit := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) { // another process
		if out, _ := w.end(t, "list", "--dir", "ca"); strings.Contains(out, "SERVED SINCE") {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("the authority was not told:\n%s", p.out)
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(w.dir, "id", "tls.crt"), filepath.Join(w.dir, "id", "tls.key"))
	must(t, err)
	serial := pair.Leaf.SerialNumber.String()
	if shown, status := w.end(t, "show", "--dir", "ca", serial); status != 0 || !strings.Contains(shown, "served since") || !strings.Contains(shown, " at "+address+"\n") {
		t.Errorf("show prints\n%s", shown)
	}
	for _, args := range [][]string{{"show", "--dir", "ca", "-o", "json", serial}, {"list", "--dir", "ca", "-o", "json"}} {
		if out, status := w.end(t, args...); status != 0 || !strings.Contains(out, `"address": "`+address+`"`) {
			t.Errorf("%s prints\n%s", args, out)
		}
	}
}

// serveFiles serves the certificate in dir, which it reads at each handshake, and returns its
// address.
func serveFiles(t *testing.T, dir string) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
		return &pair, err
	}})
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }() // nothing was sent
				_, _ = c.Read(make([]byte, 1))   // shakes hands, and waits for the other side to go
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}
