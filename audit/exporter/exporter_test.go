package exporter_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/exporter"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/internal/logtest"
)

// running is an exporter that runs until the test ends.
type running struct {
	t      *testing.T
	e      *exporter.Exporter
	config string
	log    *logtest.Buffer
}

// start starts an exporter with a configuration. It returns when all targets were looked at.
func start(t *testing.T, config string, change ...func(*exporter.Options)) *running {
	t.Helper()
	r := &running{t: t, config: filepath.Join(t.TempDir(), "exporter.yaml"), log: &logtest.Buffer{}}
	r.write(config)
	opts := exporter.Options{ConfigFile: r.config, Logger: slog.New(slog.NewTextHandler(r.log, nil)), Program: "artstore-pki test"}
	for _, c := range change {
		c(&opts)
	}
	e, err := exporter.New(opts)
	certtest.Must(t, err)
	r.e = e
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Errorf("the exporter ended: %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		work.Wait()
	})
	r.until("all was looked at", func() bool { return e.Ready(t.Context()) == nil })
	return r
}

func (r *running) write(config string) {
	certtest.Must(r.t, os.WriteFile(r.config, []byte(config), 0o600))
}

// until waits for a condition that becomes true within seconds on any machine.
func (r *running) until(what string, done func() bool) {
	r.t.Helper()
	for late := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(late) {
			r.t.Fatalf("never: %s\n%s", what, r.log.String())
		}
	}
}

// get returns the answer to a request.
func (r *running) get(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.e.Handler().ServeHTTP(w, httptest.NewRequestWithContext(r.t.Context(), http.MethodGet, path, nil))
	return w
}

// metrics returns the series of /metrics by name and labels, without the fingerprints. The test
// fails if one comes twice.
func (r *running) metrics() map[string]float64 {
	r.t.Helper()
	w := r.get("/metrics")
	if w.Code != http.StatusOK {
		r.t.Fatalf("/metrics: %d %s", w.Code, w.Body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(w.Body)
	certtest.Must(r.t, err)
	out := map[string]float64{}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			id := name
			all := name
			for _, l := range m.GetLabel() {
				all += " " + l.GetName() + "=" + l.GetValue()
				if l.GetName() != "fingerprint_sha256" {
					id += " " + l.GetValue()
				}
			}
			if _, twice := out["all "+all]; twice {
				r.t.Errorf("twice: %s", all)
			}
			out["all "+all], out[id] = 0, m.GetGauge().GetValue()+m.GetCounter().GetValue()
		}
	}
	for id := range out {
		if strings.HasPrefix(id, "all ") {
			delete(out, id)
		}
	}
	return out
}

// has returns the value of the series that begins with a name and has all the texts.
func has(series map[string]float64, name string, texts ...string) (float64, bool) {
	for id, v := range series {
		if strings.HasPrefix(id, name+" ") && !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(id, text) }) {
			return v, true
		}
	}
	return 0, false
}

// The report of the exporter is that of an audit of the same targets, as JSON and as a page.
func TestServesWhatAuditReports(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{
		"ca.crt": certtest.Encode(root), "a/tls.crt": certtest.Encode(leaf, intermediate), "a/tls.key": leaf.KeyPEM(t), "b/tls.crt": []byte("-----BEGIN CERTIFICATE-----\nMAA"),
	})
	server := audittest.Serve(t, &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}, MinVersion: tls.VersionTLS12})
	r := start(t, fmt.Sprintf("targets: [%s, %q]\ntrust_bundle: %s\n", dir, server, filepath.Join(dir, "ca.crt")))
	var got struct {
		Rows []struct {
			State, Place, Error string
			Block               int
			Findings            []audit.Finding
		}
		Complete bool
	}
	w := r.get("/report.json")
	certtest.Must(t, json.Unmarshal(w.Body.Bytes(), &got))
	targets := audittest.Paths(dir, server)
	targets.Bundle = certtest.Bundle([]*certtest.Pair{root})
	want := audittest.Run(t, targets)
	line := func(state, place string, block int, findings []audit.Finding) string {
		text := fmt.Sprint(state, " ", place, "#", block)
		for _, f := range findings {
			text += " " + f.Check
		}
		return text
	}
	var rows, expected []string
	for _, one := range got.Rows {
		rows = append(rows, line(one.State, one.Place, one.Block, one.Findings))
	}
	for _, one := range want.Rows {
		expected = append(expected, line(one.State, one.Place, one.Block, one.Findings))
	}
	slices.Sort(rows)
	slices.Sort(expected)
	if !slices.Equal(rows, expected) || !got.Complete {
		t.Errorf("rows\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(expected, "\n"))
	}
	page := r.get("/")
	if text := page.Body.String(); page.Code != http.StatusOK || !strings.Contains(text, "artstore-pki test") || !strings.Contains(text, filepath.Join(dir, "a/tls.crt")) {
		t.Errorf("the page: %d %.300s", page.Code, text)
	}
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Type": "text/html; charset=utf-8"} {
		if got := page.Header().Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for path, code := range map[string]int{"/healthz": 200, "/elsewhere": 404, "/metrics/": 404} {
		if got := r.get(path).Code; got != code {
			t.Errorf("%s: %d, want %d", path, got, code)
		}
	}
	post := httptest.NewRecorder()
	r.e.Handler().ServeHTTP(post, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/metrics", nil))
	if post.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", post.Code)
	}
}

// A new file appears, a changed one changes, one that is gone leaves, and no other file is read.
func TestFollowsFiles(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	next := certtest.New(t, intermediate, "next", certtest.Lives(time.Hour, certtest.Day))
	files := map[string][]byte{"ca.crt": certtest.Encode(root)}
	for i := range 50 {
		files[fmt.Sprintf("%d/tls.crt", i)] = certtest.Encode(leaf, intermediate)
	}
	dir := certtest.Write(t, files)
	r := start(t, "targets: ["+dir+"]\n")
	reads := r.metrics()["artstore_exporter_file_reads_total"]
	const notAfter = "artstore_audit_not_after_timestamp_seconds"
	path := filepath.Join(dir, "7/tls.crt")
	certtest.Must(t, os.WriteFile(path, certtest.Encode(next, intermediate), 0o600))
	r.until("the changed file", func() bool { _, there := has(r.metrics(), notAfter, path, "next"); return there })
	series := r.metrics()
	if v, _ := has(series, notAfter, path); v != float64(next.Cert.NotAfter.Unix()) {
		t.Errorf("it ends at %v", v)
	}
	from, _ := has(series, "artstore_audit_renewal_window_start_timestamp_seconds", path)
	overdue, _ := has(series, "artstore_audit_renewal_overdue_timestamp_seconds", path)
	if begins, ends := float64(next.Cert.NotBefore.Unix()), float64(next.Cert.NotAfter.Unix()); from <= begins || overdue <= from || ends <= overdue {
		t.Errorf("renewed from %v, overdue from %v", from, overdue)
	}
	if got := series["artstore_exporter_file_reads_total"] - reads; got < 1 || got > 3 { // a writer may be seen half-way
		t.Errorf("%v files were read", got)
	}
	certtest.Must(t, os.Remove(path))
	r.until("the removed file", func() bool { _, there := has(r.metrics(), notAfter, path); return !there })
	certtest.Must(t, os.MkdirAll(filepath.Join(dir, "new", "below"), 0o700))
	certtest.Must(t, os.WriteFile(filepath.Join(dir, "new", "below", "tls.crt"), certtest.Encode(next), 0o600))
	r.until("a file in a new directory", func() bool { _, there := has(r.metrics(), notAfter, "new/below/tls.crt"); return there })
	r.until("it is watched", func() bool { return r.metrics()["artstore_exporter_watched_directories"] == 53 })
}

// A server that does not answer keeps its certificate, which is marked, and has it again later.
func TestKeepsWhatFails(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	certtest.Must(t, err)
	address := ln.Addr().String()
	serve := func(ln net.Listener) {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}, MinVersion: tls.VersionTLS13}).HandshakeContext(t.Context())
			_ = c.Close()
		}
	}
	go serve(ln)
	dir := certtest.Write(t, map[string][]byte{"ca.crt": certtest.Encode(root)})
	record := audit.Record{Name: "ca", List: func(_ context.Context, yield func(audit.Recorded) bool) error {
		yield(audit.Recorded{
			Service: "svc", Lineage: "1", NotBefore: leaf.Cert.NotBefore, NotAfter: leaf.Cert.NotAfter, DER: leaf.Cert.Raw, Chain: intermediate.Cert.Raw,
		})
		return nil
	}, Roots: certtest.Bundle([]*certtest.Pair{root})}
	var mu sync.Mutex
	var away error
	r := start(t, fmt.Sprintf("targets: [%q]\nrecord: ca\nfast: true\nevery: {servers: 1s, record: 1s}\ntrust_bundle: %s\n", address, filepath.Join(dir, "ca.crt")), func(o *exporter.Options) {
		o.Record = func(context.Context, *exporter.Config) (audit.Record, func(), error) {
			mu.Lock()
			defer mu.Unlock()
			return record, func() {}, away
		}
	})
	const stale, unread = "artstore_audit_stale_since_timestamp_seconds", "artstore_audit_place_unread"
	series := r.metrics()
	if _, there := has(series, stale); there || series["artstore_exporter_source_up server "+address] != 1 || series["artstore_exporter_source_up record ca"] != 1 {
		t.Fatalf("before: %v", series)
	}
	certtest.Must(t, ln.Close())
	mu.Lock()
	away = errors.New("the record is away")
	mu.Unlock()
	r.until("both fail", func() bool {
		series = r.metrics()
		_, marked := has(series, stale, "endpoint", address)
		_, told := has(series, unread, "record", "ca")
		return marked && told
	})
	if _, there := has(series, unread, address, "refused"); !there || series["artstore_exporter_source_up server "+address] != 0 || series["artstore_exporter_source_failures_total server "+address] < 1 {
		t.Errorf("it is not told: %v", series)
	}
	if _, there := has(series, "artstore_audit_not_after_timestamp_seconds", "record", "ca: svc"); !there {
		t.Error("the record is forgotten")
	}
	if v, there := has(series, "artstore_exporter_source_last_success_timestamp_seconds", address); !there || v == 0 {
		t.Errorf("last success %v", v)
	}
	var report struct {
		Rows []struct {
			Place string
			Stale time.Time `json:"stale_since"`
			Error string
		}
	}
	certtest.Must(t, json.Unmarshal(r.get("/report.json").Body.Bytes(), &report))
	marked, told := false, false
	for _, row := range report.Rows {
		marked = marked || row.Place == address && !row.Stale.IsZero()
		told = told || row.Place == address && strings.Contains(row.Error, "is still listed")
	}
	if !marked || !told {
		t.Errorf("the report does not say it: %+v", report)
	}
	ln, err = new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	certtest.Must(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go serve(ln)
	mu.Lock()
	away = nil
	mu.Unlock()
	r.until("both are back", func() bool {
		series = r.metrics()
		_, marked := has(series, stale)
		_, told := has(series, unread)
		return !marked && !told
	})
}
