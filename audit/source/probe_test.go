package source_test

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
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// shownBy returns the states of the rows of one server, in the order of the report.
func shownBy(t *testing.T, targets source.Targets) (out []string) {
	t.Helper()
	targets.Timeout = audittest.Patience
	for _, row := range audittest.Run(t, targets).Rows {
		one := audittest.Report{Rows: []audit.Row{row}}
		out = append(out, audittest.States(t, &one, "")[row.Place])
	}
	return out
}

// A server whose handshake with crypto/tls fails has a row with the reason. Its certificate is
// judged: by its dates, or in full if it can be parsed.
func TestRefusedServers(t *testing.T) {
	root, intermediate, over := certtest.Hierarchy(t, certtest.OddSerial, certtest.Lives(2*certtest.Day, certtest.Day))
	bundle := certtest.Bundle([]*certtest.Pair{root})
	broken := tls.Certificate{Certificate: [][]byte{certtest.NegativeSerial(t, over), intermediate.Cert.Raw}, PrivateKey: over.Key}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	certtest.Must(t, err)
	byRSA := certtest.New(t, intermediate, "old", certtest.Lives(2*certtest.Day, certtest.Day), certtest.Holds(rsaKey.Public()))
	behind := certtest.New(t, intermediate, "behind")
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
			&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{behind.Cert.Raw, intermediate.Cert.Raw, certtest.NegativeSerial(t, over)}, PrivateKey: behind.Key}}},
			"EXPIRED expired parsing the certificate: x509: negative serial number, " +
				"ERROR shaking hands: tls: failed to parse certificate from server: x509: negative serial number",
		},
		"TLS 1.0": {
			&tls.Config{Certificates: []tls.Certificate{over.TLS(intermediate)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
			"EXPIRED expired tls-version shaking hands: remote error: tls: protocol version not supported; it takes TLS 1.0 with TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
		},
		"key exchange by RSA": {
			&tls.Config{
				Certificates: []tls.Certificate{{Certificate: [][]byte{byRSA.Cert.Raw, intermediate.Cert.Raw}, PrivateKey: rsaKey}},
				MaxVersion:   tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA},
			},
			"EXPIRED expired tls-version shaking hands: remote error: tls: handshake failure; it takes TLS 1.2 with TLS_RSA_WITH_AES_128_CBC_SHA",
		},
	} {
		got := strings.Join(shownBy(t, source.Targets{Names: []string{audittest.Serve(t, c.config)}, Bundle: bundle}), ", ")
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A server that sends no certificate to any client is a row with the reason.
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
		if got := shownBy(t, source.Targets{Names: []string{audittest.Accept(t, c.handle)}}); len(got) != 1 || !strings.HasPrefix(got[0], c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// The audit asks how a server answers other clients: old versions are a finding, and a
// certificate for another algorithm is a row.
func TestOtherClients(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	certtest.Must(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	certtest.Must(t, err)
	over := certtest.New(t, intermediate, "over", certtest.Lives(2*certtest.Day, certtest.Day), certtest.Holds(key.Public()))
	other := certtest.New(t, certtest.New(t, nil, "Other Root", certtest.Authority), "other", certtest.Holds(edKey.Public()))
	byRSA := tls.Certificate{Certificate: [][]byte{over.Cert.Raw, intermediate.Cert.Raw}, PrivateKey: key}
	byEd := tls.Certificate{Certificate: [][]byte{other.Cert.Raw}, PrivateKey: edKey}
	for name, c := range map[string]struct {
		config *tls.Config
		want   map[string]string // by what stands behind the place
		fast   string
	}{
		"one of each": {
			&tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate), byRSA, byEd}},
			map[string]string{"": "OK", " (RSA)": "EXPIRED expired", " (EdDSA)": "CRIT chain-incomplete"}, "OK",
		},
		"up to TLS 1.2": {
			&tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate), byRSA}, MaxVersion: tls.VersionTLS12},
			map[string]string{"": "WARN tls-version", " (RSA)": "EXPIRED expired"}, "WARN tls-version",
		},
		"TLS 1.0 beside TLS 1.3": {
			&tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}, MinVersion: tls.VersionTLS10},
			map[string]string{"": "WARN tls-version"}, "OK",
		},
		"another certificate for TLS 1.1": {
			&tls.Config{MinVersion: tls.VersionTLS11, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				c := leaf.TLS(intermediate)
				if hello.SupportedVersions[0] < tls.VersionTLS12 {
					c = byRSA
				}
				return &c, nil
			}},
			map[string]string{"": "WARN tls-version", " (TLS 1.1)": "EXPIRED expired"}, "OK",
		},
	} {
		address := audittest.Serve(t, c.config)
		targets := source.Targets{Names: []string{address}, Bundle: certtest.Bundle([]*certtest.Pair{root}), Timeout: audittest.Patience}
		got := map[string]string{}
		for place, state := range audittest.States(t, leaves(audittest.Run(t, targets)), "") {
			got[strings.TrimPrefix(place, address)] = state
		}
		t.Run(name, func(t *testing.T) { audittest.Want(t, got, c.want) })
		targets.Fast = true
		if got := audittest.States(t, leaves(audittest.Run(t, targets)), ""); len(got) != 1 || got[address] != c.fast {
			t.Errorf("%s, in haste: %v", name, got)
		}
	}
}

// leaves returns a report without the rows of authorities.
func leaves(r *audittest.Report) *audittest.Report {
	out := *r
	out.Rows = slices.DeleteFunc(slices.Clone(r.Rows), func(r audit.Row) bool { return r.Cert != nil && r.Cert.X509() != nil && r.Cert.X509().IsCA })
	return &out
}

// The finding names the oldest version.
func TestOldestVersion(t *testing.T) {
	_, intermediate, leaf := certtest.Hierarchy(t)
	for least, text := range map[uint16]string{tls.VersionTLS10: "it also accepts TLS 1.0", tls.VersionTLS11: "it also accepts TLS 1.1"} {
		address := audittest.Serve(t, &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}, MinVersion: least})
		row := audittest.Run(t, source.Targets{Names: []string{address}, Timeout: audittest.Patience}).Rows[0]
		if len(row.Findings) != 2 || row.Findings[0].Text != text {
			t.Errorf("%+v", row.Findings)
		}
	}
}

// A server that answers the handshake and no further hello takes one more timeout. Its row has
// the result of the handshake.
func TestSilentProbes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	_, intermediate, leaf := certtest.Hierarchy(t)
	config := &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}}
	var asked atomic.Int64
	address := audittest.Accept(t, func(c net.Conn) {
		if asked.Add(1) > 1 {
			_, _ = io.Copy(io.Discard, c)
			return
		}
		_ = tls.Server(c, config).Handshake() // refusals are the point
	})
	r := audittest.Run(t, source.Targets{Names: []string{address}, Timeout: 4 * time.Second})
	if got := audittest.States(t, leaves(r), ""); len(got) != 1 || got[address] != "OK" || asked.Load() != 2 {
		t.Errorf("%v after %d connections", got, asked.Load())
	}
}
