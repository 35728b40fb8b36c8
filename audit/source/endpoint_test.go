package source_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

func TestEndpoints(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	stranger := certtest.New(t, nil, "Stranger Root", certtest.Authority)
	bundle := certtest.Bundle([]*certtest.Pair{root})
	server := func(c tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS12}
	}
	mutual := server(leaf.TLS(intermediate))
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	old := server(leaf.TLS(intermediate))
	old.MaxVersion, old.ClientAuth = tls.VersionTLS12, tls.RequireAnyClientCert
	addresses := map[string]string{
		"fine":       audittest.Serve(t, server(leaf.TLS(intermediate))),
		"mutual":     audittest.Serve(t, mutual),
		"tls 1.2":    audittest.Serve(t, old),
		"expired":    audittest.Serve(t, server(certtest.New(t, intermediate, "old", certtest.Lives(2*certtest.Day, certtest.Day)).TLS(intermediate))),
		"incomplete": audittest.Serve(t, server(leaf.TLS())),
		"stranger":   audittest.Serve(t, server(certtest.New(t, stranger, "x").TLS(stranger))),
		"other name": audittest.Serve(t, server(certtest.New(t, intermediate, "x", certtest.Named("elsewhere")).TLS(intermediate))),
		"cleartext":  audittest.Accept(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 smtp ready\r\n") }),
		"nobody":     "127.0.0.1:1",
		"no port":    "127.0.0.1:0x",
	}
	var all []string
	label := map[string]string{}
	for name, address := range addresses {
		all, label[address] = append(all, address), name
	}
	r := audittest.Run(t, source.Targets{Names: all, Bundle: bundle, Timeout: audittest.Patience})
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
		got[label[row.Place]] = audittest.States(t, &one, "")[row.Place]
	}
	for _, place := range []string{"nobody", "no port"} {
		if !strings.HasPrefix(got[place], "ERROR ") {
			t.Errorf("%s: %s", place, got[place])
		}
		delete(got, place)
	}
	audittest.Want(t, got, map[string]string{
		"fine": "OK", "mutual": "OK", "tls 1.2": "WARN tls-version",
		"expired": "EXPIRED expired", "incomplete": "CRIT chain-incomplete", "stranger": "CRIT untrusted",
		"other name": "CRIT name-mismatch", "cleartext": "ERROR it does not speak TLS; try smtp://" + addresses["cleartext"],
	})
	for _, row := range r.Rows {
		if label[row.Place] == "fine" && !row.Cert.X509().IsCA && (row.TLS == nil || row.TLS.Version != tls.VersionTLS13 || row.TLS.CurveID == 0) {
			t.Errorf("handshake: %+v", row.TLS)
		}
	}

	// Without a bundle the certificate is read all the same, and its chain not judged.
	r = audittest.Run(t, source.Targets{Names: []string{"https://" + addresses["stranger"] + "/health"}, Timeout: audittest.Patience})
	if len(r.Rows) != 2 || r.Rows[0].State != "OK" || r.Rows[0].Cert.X509().Subject.CommonName != "x" || r.Unjudged != 1 {
		t.Errorf("%+v, %d not judged", r.Rows, r.Unjudged)
	}
	// The order in which they are sent is seen.
	lower := certtest.New(t, intermediate, "Lower Intermediate", certtest.Authority)
	r = audittest.Run(t, source.Targets{Names: []string{audittest.Serve(t, server(certtest.New(t, lower, "x").TLS(intermediate, lower)))}, Bundle: bundle, Timeout: audittest.Patience})
	if first := r.Rows[0]; first.State != "WARN" || first.Findings[0].Check != "chain-order" || len(first.Findings) != 1 {
		t.Errorf("%+v", first)
	}
	// An intermediate that ends before its leaf is seen, though only the server has it.
	brief := certtest.New(t, root, "Brief Intermediate", certtest.Authority, certtest.Lives(29*certtest.Day, 30*certtest.Day))
	r = audittest.Run(t, source.Targets{Names: []string{audittest.Serve(t, server(certtest.New(t, brief, "x").TLS(brief)))}, Bundle: bundle, Timeout: audittest.Patience})
	if first := r.Rows[0]; first.State != "CRIT" || first.Findings[0].Check != "expiring" || first.Cert.X509().Subject.CommonName != "Brief Intermediate" {
		t.Errorf("%+v", first)
	}
}

func TestSilentEndpoint(t *testing.T) {
	address := audittest.Accept(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	r := audittest.Run(t, source.Targets{Names: []string{address}, Timeout: 50 * time.Millisecond})
	if got := audittest.States(t, r, "")[address]; got != "ERROR no answer within 50ms" {
		t.Error(got)
	}
}

// A silent server takes no slot, so another one is audited meanwhile even with one slot. The
// silent server of this test answers after the other one was audited.
func TestSilentHoldsNobodyUp(t *testing.T) {
	_, intermediate, leaf := certtest.Hierarchy(t)
	config := &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}}
	other := make(chan struct{})
	late := audittest.Accept(t, func(c net.Conn) {
		<-other
		_ = tls.Server(c, config).Handshake() // refusals are the point
	})
	prompt := audittest.Accept(t, func(c net.Conn) {
		defer close(other)
		_ = tls.Server(c, config).Handshake()
	})
	r := audittest.Run(t, source.Targets{Names: []string{late, prompt}, Parallel: 1, Fast: true, Timeout: audittest.Patience})
	audittest.Want(t, audittest.States(t, r, ""), map[string]string{late: "OK", prompt: "OK"})
}

// Servers that answer share the slots. Here all servers have greeted before the first one
// continues, and never more servers than slots have got an answer to their greeting.
func TestTurns(t *testing.T) {
	const servers, parallel = 40, 3
	var greeted sync.WaitGroup
	greeted.Add(servers)
	var talking, most atomic.Int64
	handle := func(c net.Conn) {
		_, _ = io.WriteString(c, "220 ready\r\n")
		greeted.Done()
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			return
		}
		now := talking.Add(1)
		seen := most.Load()
		for now > seen && !most.CompareAndSwap(seen, now) {
			seen = most.Load()
		}
		greeted.Wait()
		talking.Add(-1)
		_, _ = io.WriteString(c, "250 no TLS here\r\n")
	}
	var names []string
	for range servers {
		names = append(names, "smtp://"+audittest.Accept(t, handle))
	}
	r := audittest.Run(t, source.Targets{Names: names, Parallel: parallel, Timeout: audittest.Patience})
	for place, state := range audittest.States(t, r, "") {
		if state != "ERROR it speaks SMTP, and does not offer STARTTLS" {
			t.Errorf("%s: %s", place, state)
		}
	}
	if n := most.Load(); len(r.Rows) != servers || n > parallel {
		t.Errorf("%d rows, %d at a time, want %d and at most %d", len(r.Rows), n, servers, parallel)
	}
}
