package audit_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
)

// serve shakes hands with everyone who comes, until the test ends.
func serve(t *testing.T, config *tls.Config) (address string) {
	t.Helper()
	return accept(t, func(c net.Conn) { _ = tls.Server(c, config).Handshake() }) // refusals are the point
}

// accept hands every connection to handle and closes it afterwards.
func accept(t *testing.T, handle func(net.Conn)) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				handle(c)
				_ = c.Close()
			}()
		}
	}()
	return ln.Addr().String()
}

func TestEndpoints(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	stranger := newPair(t, nil, "Stranger Root", authority)
	bundle := certs([]*pair{root})
	server := func(c tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS12}
	}
	mutual := server(leaf.tls(intermediate))
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	old := server(leaf.tls(intermediate))
	old.MaxVersion, old.ClientAuth = tls.VersionTLS12, tls.RequireAnyClientCert
	addresses := map[string]string{
		"fine":       serve(t, server(leaf.tls(intermediate))),
		"mutual":     serve(t, mutual),
		"tls 1.2":    serve(t, old),
		"expired":    serve(t, server(newPair(t, intermediate, "old", lives(2*day, day)).tls(intermediate))),
		"incomplete": serve(t, server(leaf.tls())),
		"stranger":   serve(t, server(newPair(t, stranger, "x").tls(stranger))),
		"other name": serve(t, server(newPair(t, intermediate, "x", named("elsewhere")).tls(intermediate))),
		"cleartext":  accept(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 smtp ready\r\n") }),
		"nobody":     "127.0.0.1:1",
		"no port":    "127.0.0.1:0x",
	}
	var all []string
	label := map[string]string{}
	for name, address := range addresses {
		all, label[address] = append(all, address), name
	}
	r := run(t, audit.Targets{Names: all, Bundle: bundle})
	got := map[string]string{}
	for _, row := range r.Rows {
		// A place has the row of its leaf, and those of the authorities that it shows first.
		if row.Cert != nil && row.Cert.X509().IsCA {
			if row.State != "OK" {
				t.Errorf("%s: %s", row.Cert.X509().Subject, row.State)
			}
			continue
		}
		one := *r
		one.Rows = []audit.Row{row}
		got[label[row.Place]] = states(t, &one, "")[row.Place]
	}
	for _, place := range []string{"nobody", "no port"} {
		if !strings.HasPrefix(got[place], "ERROR ") {
			t.Errorf("%s: %s", place, got[place])
		}
		delete(got, place)
	}
	want(t, got, map[string]string{
		"fine": "OK", "mutual": "OK", "tls 1.2": "WARN tls-version",
		"expired": "EXPIRED expired", "incomplete": "CRIT chain-incomplete", "stranger": "CRIT untrusted",
		"other name": "CRIT name-mismatch", "cleartext": "ERROR it does not speak TLS",
	})
	for _, row := range r.Rows {
		if label[row.Place] == "fine" && !row.Cert.X509().IsCA && (row.TLS == nil || row.TLS.Version != tls.VersionTLS13 || row.TLS.CurveID == 0) {
			t.Errorf("handshake: %+v", row.TLS)
		}
	}

	// Without a bundle the certificate is read all the same, and its chain not judged.
	r = run(t, audit.Targets{Names: []string{"https://" + addresses["stranger"] + "/health"}})
	if len(r.Rows) != 2 || r.Rows[0].State != "OK" || r.Rows[0].Cert.X509().Subject.CommonName != "x" || r.Unjudged != 1 {
		t.Errorf("%+v, %d not judged", r.Rows, r.Unjudged)
	}
	// The order in which they are sent is seen.
	lower := newPair(t, intermediate, "Lower Intermediate", authority)
	r = run(t, audit.Targets{Names: []string{serve(t, server(newPair(t, lower, "x").tls(intermediate, lower)))}, Bundle: bundle})
	if first := r.Rows[0]; first.State != "WARN" || first.Findings[0].Check != "chain-order" || len(first.Findings) != 1 {
		t.Errorf("%+v", first)
	}
	// An intermediate that ends before its leaf is seen, though only the server has it.
	brief := newPair(t, root, "Brief Intermediate", authority, lives(29*day, 30*day))
	r = run(t, audit.Targets{Names: []string{serve(t, server(newPair(t, brief, "x").tls(brief)))}, Bundle: bundle})
	if first := r.Rows[0]; first.State != "CRIT" || first.Findings[0].Check != "expiring" || first.Cert.X509().Subject.CommonName != "Brief Intermediate" {
		t.Errorf("%+v", first)
	}
}

func TestSilentEndpoint(t *testing.T) {
	address := accept(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	r := run(t, audit.Targets{Names: []string{address}, Timeout: 50 * time.Millisecond})
	if got := states(t, r, "")[address]; got != "ERROR no answer within 50ms" {
		t.Error(got)
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"storage:8010": "storage 8010", "[::1]:443": "::1 443",
		"https://admin/x": "admin 443", "https://[::1]:8000": "::1 8000", "artstore_admin_module:8000": "artstore_admin_module 8000",
	} {
		if host, port, err := audit.ParseAddress(text); err != nil || host+" "+port != want {
			t.Errorf("%s: %q %q %v", text, host, port, err)
		}
	}
	for _, text := range []string{"", "storage", ":443", "a/b:443", "storage:nonsense", "storage:65536", "storage:-1", "https://", "http://x:1", "x:y:z"} {
		if host, port, err := audit.ParseAddress(text); err == nil {
			t.Errorf("%q: %q %q", text, host, port)
		}
	}
}
