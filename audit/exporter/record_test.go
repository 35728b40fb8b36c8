package exporter_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/exporter"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// recordOf returns a record with one lineage, the newest certificate first.
func recordOf(root *certtest.Pair, lineage ...*certtest.Pair) audit.Record {
	return audit.Record{Name: "ca", Roots: certtest.Bundle([]*certtest.Pair{root}), List: func(_ context.Context, yield func(audit.Recorded) bool) error {
		for _, p := range lineage {
			yield(audit.Recorded{
				Service: "svc", Lineage: "1", Names: p.Cert.DNSNames, NotBefore: p.Cert.NotBefore, NotAfter: p.Cert.NotAfter, DER: p.Cert.Raw, Chain: root.Cert.Raw,
			})
		}
		return nil
	}}
}

// A server that shows what was replaced is a difference, with the moment from which on it is known.
// The moment stays until the difference is gone.
func TestSinceWhen(t *testing.T) {
	root := certtest.New(t, nil, "Root", certtest.Authority)
	before := certtest.New(t, root, "svc", certtest.Lives(20*time.Hour, certtest.Day))
	now := certtest.New(t, root, "svc", certtest.Lives(4*time.Hour, certtest.Day))
	var loaded atomic.Bool
	address := audittest.Serve(t, &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := before.TLS()
		if loaded.Load() {
			c = now.TLS()
		}
		return &c, nil
	}})
	r := start(t, fmt.Sprintf("targets: [%q]\nfast: true\nrecord: ca\nevery: {servers: 1s}\n", address), func(o *exporter.Options) {
		o.Record = func(context.Context, *exporter.Config) (audit.Record, func(), error) {
			return recordOf(root, now, before), func() {}, nil
		}
	})
	const since = "artstore_audit_certificate_finding_since_timestamp_seconds"
	series := r.metrics()
	first, there := has(series, since, address, "replaced")
	if !there || first < float64(time.Now().Add(-time.Minute).Unix()) {
		t.Fatalf("since %v: %v", first, series)
	}
	if _, judged := has(series, "artstore_audit_chain_not_after_timestamp_seconds", address); !judged {
		t.Error("the roots of the record have not judged the chain")
	}
	time.Sleep(1100 * time.Millisecond) // the moment of a later scrape is another second
	if again, _ := has(r.metrics(), since, address, "replaced"); again != first {
		t.Errorf("since %v, and then %v", first, again)
	}
	loaded.Store(true)
	r.until("the difference is gone", func() bool { _, there := has(r.metrics(), since, address); return !there })
}

// A record that can be read later judges what was found before.
func TestRecordComesLater(t *testing.T) {
	root := certtest.New(t, nil, "Root", certtest.Authority)
	leaf := certtest.New(t, root, "svc", certtest.Lives(4*time.Hour, certtest.Day))
	dir := certtest.Write(t, map[string][]byte{"tls.crt": certtest.Encode(leaf)})
	var there atomic.Bool
	r := start(t, "targets: ["+dir+"]\nrecord: ca\nevery: {record: 1s}\n", func(o *exporter.Options) {
		o.Record = func(context.Context, *exporter.Config) (audit.Record, func(), error) {
			if !there.Load() {
				return audit.Record{}, nil, errors.New("the authority is away")
			}
			return recordOf(root, leaf), func() {}, nil
		}
	})
	const chain = "artstore_audit_chain_not_after_timestamp_seconds"
	series := r.metrics()
	if _, judged := has(series, chain, "tls.crt"); judged || series["artstore_exporter_source_up record ca"] != 0 || series["artstore_audit_chains_not_judged"] != 1 {
		t.Errorf("without the record: %v", series)
	}
	there.Store(true)
	r.until("the chain is judged", func() bool { _, judged := has(r.metrics(), chain, "tls.crt"); return judged })
	if n := r.metrics()["artstore_audit_chains_not_judged"]; n != 0 {
		t.Errorf("%v chains are not judged", n)
	}
}

// A new certificate in a file was recorded a moment before. It is compared with the record of that moment, and
// not with one that was read an hour ago, or each renewal would be a certificate that the record does not know.
func TestRecordFollowsFiles(t *testing.T) {
	root := certtest.New(t, nil, "Root", certtest.Authority)
	before := certtest.New(t, root, "svc", certtest.Lives(20*time.Hour, certtest.Day))
	now := certtest.New(t, root, "svc", certtest.Lives(4*time.Hour, certtest.Day))
	dir := certtest.Write(t, map[string][]byte{"tls.crt": certtest.Encode(before)})
	var renewed atomic.Bool
	r := start(t, "targets: ["+dir+"]\nrecord: ca\nevery: {record: 1h}\n", func(o *exporter.Options) {
		o.Record = func(context.Context, *exporter.Config) (audit.Record, func(), error) {
			if renewed.Load() {
				return recordOf(root, now, before), func() {}, nil
			}
			return recordOf(root, before), func() {}, nil
		}
	})
	renewed.Store(true)
	certtest.Must(t, os.WriteFile(filepath.Join(dir, "tls.crt"), certtest.Encode(now), 0o600))
	r.until("the new certificate is known", func() bool {
		series := r.metrics()
		_, read := has(series, "artstore_audit_not_after_timestamp_seconds", "tls.crt")
		_, unknown := has(series, "artstore_audit_certificate_finding", "tls.crt", "not-recorded")
		return read && !unknown && series["artstore_exporter_source_rounds_total record ca"] == 2
	})
}

// A client that goes away in the middle of an answer holds up no other one, and HEAD has no body.
func TestClientsGoAway(t *testing.T) {
	root := certtest.New(t, nil, "Root", certtest.Authority)
	dir := certtest.Write(t, map[string][]byte{"ca.crt": certtest.Encode(root)})
	r := start(t, "targets: ["+dir+"]\n")
	server := httptest.NewServer(r.e.Handler())
	defer server.Close()
	for _, path := range []string{"/metrics", "/", "/report.json"} {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
		certtest.Must(t, err)
		resp, err := server.Client().Do(req)
		certtest.Must(t, err)
		cancel()
		_ = resp.Body.Close()
		if code := r.get(path).Code; code != http.StatusOK {
			t.Errorf("%s after that: %d", path, code)
		}
		head := httptest.NewRecorder()
		r.e.Handler().ServeHTTP(head, httptest.NewRequestWithContext(t.Context(), http.MethodHead, path, nil))
		if head.Code != http.StatusOK || head.Body.Len() > 0 {
			t.Errorf("HEAD %s: %d, %d bytes", path, head.Code, head.Body.Len())
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	busy := httptest.NewRecorder()
	for range 20 { // either turn may be first when both are possible
		busy = httptest.NewRecorder()
		func() {
			defer func() { _ = recover() }() // an answer that was cut ends so
			r.e.Handler().ServeHTTP(busy, httptest.NewRequestWithContext(ended, http.MethodGet, "/metrics", nil))
		}()
		if busy.Code == http.StatusServiceUnavailable {
			break
		}
	}
	if busy.Code != http.StatusServiceUnavailable || busy.Header().Get("Retry-After") == "" {
		t.Errorf("without a turn: %d", busy.Code)
	}
}
