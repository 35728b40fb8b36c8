package audit_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/source"
)

// shownBy are the states of the rows of one server, in the order of the report.
func shownBy(t *testing.T, targets source.Targets) (out []string) {
	t.Helper()
	targets.Timeout = patience
	for _, row := range run(t, targets).Rows {
		one := keptReport{Rows: []audit.Row{row}}
		out = append(out, states(t, &one, "")[row.Place])
	}
	return out
}

// A server with which crypto/tls comes to no agreement has a row with the reason,
// and its certificate is judged: by its dates, or in full if it can be parsed.
func TestRefusedServers(t *testing.T) {
	root, intermediate, over := hierarchy(t, odd, lives(2*Day, Day))
	bundle := bundleOf([]*pair{root})
	broken := tls.Certificate{Certificate: [][]byte{negative(t, over), intermediate.cert.Raw}, PrivateKey: over.key}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	byRSA := newPair(t, intermediate, "old", lives(2*Day, Day), holds(rsaKey.Public()))
	behind := newPair(t, intermediate, "behind")
	for name, c := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"negative serial number, TLS 1.3": {
			&tls.Config{Certificates: []tls.Certificate{broken}},
			"EXPIRED expired shaking hands: tls: failed to parse certificate from server: x509: negative serial number",
		},
		"negative serial number, TLS 1.2": {
			&tls.Config{Certificates: []tls.Certificate{broken}, MaxVersion: tls.VersionTLS12},
			"EXPIRED expired shaking hands: tls: failed to parse certificate from server: x509: negative serial number",
		},
		"negative serial number behind": {
			&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{behind.cert.Raw, intermediate.cert.Raw, negative(t, over)}, PrivateKey: behind.key}}},
			"EXPIRED expired parsing the certificate: x509: negative serial number, " +
				"ERROR shaking hands: tls: failed to parse certificate from server: x509: negative serial number",
		},
		"TLS 1.0": {
			&tls.Config{Certificates: []tls.Certificate{over.tls(intermediate)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
			"EXPIRED expired tls-version shaking hands: remote error: tls: protocol version not supported; it takes TLS 1.0 with TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
		},
		"key exchange by RSA": {
			&tls.Config{
				Certificates: []tls.Certificate{{Certificate: [][]byte{byRSA.cert.Raw, intermediate.cert.Raw}, PrivateKey: rsaKey}},
				MaxVersion:   tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA},
			},
			"EXPIRED expired tls-version shaking hands: remote error: tls: handshake failure; it takes TLS 1.2 with TLS_RSA_WITH_AES_128_CBC_SHA",
		},
	} {
		got := strings.Join(shownBy(t, source.Targets{Names: []string{serve(t, c.config)}, Bundle: bundle}), ", ")
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// Those that send no certificate to anybody are a row with the reason.
func TestServersWithoutCertificate(t *testing.T) {
	for name, c := range map[string]struct {
		handle func(net.Conn)
		want   string
	}{
		"an alert":     {func(c net.Conn) { _, _ = c.Read(make([]byte, 4<<10)); _, _ = c.Write([]byte{21, 3, 1, 0, 2, 2, 40}) }, "ERROR shaking hands: remote error: tls: handshake failure"},
		"hangs up":     {func(c net.Conn) { _, _ = c.Read(make([]byte, 4<<10)) }, "ERROR shaking hands: "},
		"another word": {func(c net.Conn) { _, _ = io.WriteString(c, "+OK ready\r\n"); _, _ = io.Copy(io.Discard, c) }, "ERROR it does not speak TLS"},
		"a chain of 16 MiB": {func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4<<10))
			_, _ = c.Write(append([]byte{22, 3, 3, 0x40, 0, 2, 0, 0, 38, 3, 3, 31: 0, 43: 0x2f, 44: 0, 45: 11, 46: 0xff, 47: 0xff, 48: 0xff}, make([]byte, 16<<20)...))
			_, _ = io.Copy(io.Discard, c)
		}, "ERROR shaking hands: "},
	} {
		if got := shownBy(t, source.Targets{Names: []string{accept(t, c.handle)}}); len(got) != 1 || !strings.HasPrefix(got[0], c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// What a server does for other clients is asked for: old versions are a finding,
// and a certificate for another algorithm is a row.
func TestOtherClients(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	over := newPair(t, intermediate, "over", lives(2*Day, Day), holds(key.Public()))
	other := newPair(t, newPair(t, nil, "Other Root", authority), "other", holds(edKey.Public()))
	byRSA := tls.Certificate{Certificate: [][]byte{over.cert.Raw, intermediate.cert.Raw}, PrivateKey: key}
	byEd := tls.Certificate{Certificate: [][]byte{other.cert.Raw}, PrivateKey: edKey}
	for name, c := range map[string]struct {
		config *tls.Config
		want   map[string]string // by what stands behind the place
		fast   string
	}{
		"one of each": {
			&tls.Config{Certificates: []tls.Certificate{leaf.tls(intermediate), byRSA, byEd}},
			map[string]string{"": "OK", " (RSA)": "EXPIRED expired", " (EdDSA)": "CRIT chain-incomplete"}, "OK",
		},
		"up to TLS 1.2": {
			&tls.Config{Certificates: []tls.Certificate{leaf.tls(intermediate), byRSA}, MaxVersion: tls.VersionTLS12},
			map[string]string{"": "WARN tls-version", " (RSA)": "EXPIRED expired"}, "WARN tls-version",
		},
		"TLS 1.0 beside TLS 1.3": {
			&tls.Config{Certificates: []tls.Certificate{leaf.tls(intermediate)}, MinVersion: tls.VersionTLS10},
			map[string]string{"": "WARN tls-version"}, "OK",
		},
		"another certificate for TLS 1.1": {
			&tls.Config{MinVersion: tls.VersionTLS11, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				c := leaf.tls(intermediate)
				if hello.SupportedVersions[0] < tls.VersionTLS12 {
					c = byRSA
				}
				return &c, nil
			}},
			map[string]string{"": "WARN tls-version", " (TLS 1.1)": "EXPIRED expired"}, "OK",
		},
	} {
		address := serve(t, c.config)
		targets := source.Targets{Names: []string{address}, Bundle: bundleOf([]*pair{root}), Timeout: patience}
		got := map[string]string{}
		for place, state := range states(t, leaves(run(t, targets)), "") {
			got[strings.TrimPrefix(place, address)] = state
		}
		t.Run(name, func(t *testing.T) { want(t, got, c.want) })
		targets.Fast = true
		if got := states(t, leaves(run(t, targets)), ""); len(got) != 1 || got[address] != c.fast {
			t.Errorf("%s, in haste: %v", name, got)
		}
	}
}

// leaves is a report without authorities.
func leaves(r *keptReport) *keptReport {
	out := *r
	out.Rows = slices.DeleteFunc(slices.Clone(r.Rows), func(r audit.Row) bool { return r.Cert != nil && r.Cert.X509() != nil && r.Cert.X509().IsCA })
	return &out
}

// The finding says which version it is.
func TestOldestVersion(t *testing.T) {
	_, intermediate, leaf := hierarchy(t)
	for least, text := range map[uint16]string{tls.VersionTLS10: "it also accepts TLS 1.0", tls.VersionTLS11: "it also accepts TLS 1.1"} {
		address := serve(t, &tls.Config{Certificates: []tls.Certificate{leaf.tls(intermediate)}, MinVersion: least})
		row := run(t, source.Targets{Names: []string{address}, Timeout: patience}).Rows[0]
		if len(row.Findings) != 2 || row.Findings[0].Text != text {
			t.Errorf("%+v", row.Findings)
		}
	}
}

// A server that answers a client and keeps silent to the questions after it costs
// one more timeout, and its row is what the client saw.
func TestSilentProbes(t *testing.T) {
	_, intermediate, leaf := hierarchy(t)
	config := &tls.Config{Certificates: []tls.Certificate{leaf.tls(intermediate)}}
	var asked atomic.Int64
	address := accept(t, func(c net.Conn) {
		if asked.Add(1) > 1 {
			_, _ = io.Copy(io.Discard, c)
			return
		}
		_ = tls.Server(c, config).Handshake() // refusals are the point
	})
	r := run(t, source.Targets{Names: []string{address}, Timeout: 4 * time.Second})
	if got := states(t, leaves(r), ""); len(got) != 1 || got[address] != "OK" || asked.Load() != 2 {
		t.Errorf("%v after %d connections", got, asked.Load())
	}
}
