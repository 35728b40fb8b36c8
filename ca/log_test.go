package ca_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// withAuditor lets the service "storage" read the record.
func withAuditor(yaml []byte) []byte { return append(yaml, "\nauditors: [storage]\n"...) }

// headOf waits for a head of at least size entries, as a client would see it.
func headOf(t testing.TB, c *catest.CA, size int64) (text []byte, h translog.Head) {
	t.Helper()
	v, err := ca.StateDir(c.Dir).LogVerifier()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		status, body := newClient(t, c, nil).do("GET", "/1.0/log/head", nil)
		if status == http.StatusOK {
			if h, err = v.Open(body); err != nil {
				t.Fatal(err)
			}
			if h.Size >= size {
				return body, h
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no head of %d entries: %d %s", size, status, body)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// TestHeadsAreHandedOut: each certificate comes with a head, everybody may ask for the
// newest, and clients get proofs that the log of today begins with the log of their
// head.
func TestHeadsAreHandedOut(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: withAuditor})
	auditor := enrol(t, c, "storage", "storage")
	other := enrol(t, c, "ingester", "ingester")
	_, old := headOf(t, c, 2)
	cl := newClient(t, c, auditor)
	resp := renewRaw(t, cl)
	told, err := base64.StdEncoding.DecodeString(resp.Get(stepapi.HeaderLogHead))
	if err != nil {
		t.Fatal(err)
	}
	v, err := ca.StateDir(c.Dir).LogVerifier()
	if err != nil {
		t.Fatal(err)
	}
	if h, err := v.Open(told); err != nil || h.Size < old.Size {
		t.Errorf("with a certificate: %+v, %v", h, err)
	}
	_, now := headOf(t, c, 4) // all events, so that no later head is signed before the proof

	status, body := newClient(t, c, other).do("GET", fmt.Sprintf("/log/proof?from=%d", old.Size), nil)
	var p stepapi.LogProof
	if status != http.StatusOK || json.Unmarshal(body, &p) != nil {
		t.Fatalf("%d %s", status, body)
	}
	var proof tlog.TreeProof
	for _, h := range p.Hashes {
		proof = append(proof, tlog.Hash(h))
	}
	if err := tlog.CheckTree(proof, now.Size, now.Root, old.Size, old.Root); err != nil {
		t.Errorf("the proof from %d to %d: %v", old.Size, now.Size, err)
	}

	status, body = cl.do("GET", "/log/entry/0", nil)
	var e stepapi.LogEntry
	if status != http.StatusOK || json.Unmarshal(body, &e) != nil {
		t.Fatalf("%d %s", status, body)
	}
	head, err := v.Open([]byte(e.Head))
	if err != nil {
		t.Fatal(err)
	}
	var inclusion tlog.RecordProof
	for _, h := range e.Hashes {
		inclusion = append(inclusion, tlog.Hash(h))
	}
	if err := tlog.CheckRecord(inclusion, head.Size, head.Root, 0, tlog.RecordHash(e.Entry)); err != nil {
		t.Error(err)
	}
	if said, err := translog.ParseEntry(e.Entry); err != nil || said.Kind != kinds.SelfIssued {
		t.Errorf("the first entry is not the authority's own certificate: %+v, %v", said, err)
	}
	for path, want := range map[string]int{
		"/log/proof?from=0": 400, "/log/proof?from=99": 400, "/log/proof?from=x": 400, "/log/proof?form=1": 400, "/log/proof?from=1&to=99": 400,
		"/log/entry/99": 404, "/log/entry/-1": 404, "/log/entry/x": 404,
	} {
		if status, body := cl.do("GET", path, nil); status != want {
			t.Errorf("%s: %d %s, want %d", path, status, body, want)
		}
	}
	if status, _ := newClient(t, c, nil).do("GET", "/log/proof?from=1", nil); status != http.StatusUnauthorized {
		t.Errorf("a stranger got a proof: %d", status)
	}
	if status, _ := newClient(t, c, other).do("GET", "/log/entry/0", nil); status != http.StatusForbidden {
		t.Errorf("a peer that is no auditor read an entry: %d", status)
	}
	c.Check(t)
}

// renewRaw renews and returns the headers of the answer.
func renewRaw(t *testing.T, cl *client) http.Header {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, cl.url+"/1.0/renew", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := cl.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("renew: %d", resp.StatusCode)
	}
	return resp.Header
}

// TestKeptHead compares a head that a client has kept with the record of today.
func TestKeptHead(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	enrol(t, c, "storage", "storage")
	text, _ := headOf(t, c, 2)
	record := openRecord(t, c)
	var progress int64
	report, err := record.VerifyLog(t.Context(), ca.LogOptions{Heads: [][]byte{text}, Progress: func(done, _ int64) { progress = done }})
	if err != nil || len(report.Findings) > 0 || report.Checked != 2 || progress != 2 {
		t.Errorf("%+v, progress %d, %v", report, progress, err)
	}
	if newest, err := record.LogHead(t.Context()); err != nil || !bytes.Equal(newest, text) {
		t.Errorf("%q, %v", newest, err)
	}
	other := catest.Start(t, catest.Options{Profiles: profiles()})
	foreign, _ := headOf(t, other, 1)
	report, err = record.VerifyLog(t.Context(), ca.LogOptions{Heads: [][]byte{foreign}})
	if err != nil || len(report.Findings) != 1 || report.Findings[0].Fault != eventlog.FaultUnsigned {
		t.Errorf("a head of another log: %+v, %v", report, err)
	}
	if _, err := record.VerifyLog(t.Context(), ca.LogOptions{Heads: [][]byte{[]byte("x")}}); err == nil {
		t.Error("what is no head was taken for one")
	}
}

// TestLogKey: a lost public half of the key is made again. The private half is never
// made anew for a log that has a head.
func TestLogKey(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		t.Fatal(err)
	}
	private, public := filepath.Join(dir, "secrets/log.key"), filepath.Join(dir, "certs/log.pub")
	want, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(private); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	reopen := func() error {
		a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		return a.Close()
	}
	if err := os.Remove(public); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.StateDir(dir).LogVerifier(); err == nil {
		t.Error("read without a file")
	}
	if err := reopen(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(public); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, want %q, %v", got, want, err)
	}
	// A directory from before there was a log.
	for _, path := range []string{private, public} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := reopen(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "log.key") {
		t.Errorf("a key was made beside a record: %v", err)
	}
	// A record from before there was a log has no head. The operator has to accept that.
	damage.SQL(t, dir, `DELETE FROM log_state; DELETE FROM trust_versions`)
	if err := os.Remove(filepath.Join(dir, "certs/log.head")); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.StateDir(dir).AcceptLoss(t.Context(), ca.AcceptOptions{}); err != nil {
		t.Errorf("an older directory: %v", err)
	}
	if err := reopen(); err != nil {
		t.Errorf("an older directory: %v", err)
	}
	if want, err = os.ReadFile(public); err != nil {
		t.Fatal(err)
	}
	damage.File(t, public, []byte("x"))
	if _, err := ca.StateDir(dir).LogVerifier(); err == nil {
		t.Error("a broken public key was read")
	}
	if err := reopen(); err == nil || !strings.Contains(err.Error(), "is not the key of") {
		t.Errorf("another public key was replaced: %v", err)
	}
	damage.File(t, public, want)
	issuing := damage.Files(t, dir, "secrets/????????*.key")[0]
	data, err := os.ReadFile(issuing)
	if err != nil {
		t.Fatal(err)
	}
	damage.File(t, private, data)
	if err := reopen(); err == nil || !strings.Contains(err.Error(), "no Ed25519 key") {
		t.Errorf("an EC key: %v", err)
	}
	damage.File(t, private, []byte("x"))
	if err := reopen(); err == nil || !strings.Contains(err.Error(), "log.key") {
		t.Errorf("no key: %v", err)
	}
}

func TestLogKeyIsNotReplaced(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	headOf(t, c, 1)
	mustMark(t, c, 1) // while the marker is written a temporary file is beside it
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(c.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "secrets/log.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Open(t.Context(), ca.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "log.key") {
		t.Errorf("opened: %v", err)
	}
	// The key of another log is refused as well.
	other := catest.Start(t, catest.Options{Profiles: profiles()})
	data, err := os.ReadFile(filepath.Join(other.Dir, "secrets/log.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secrets/log.key"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Open(t.Context(), ca.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "log.key is not the key of") {
		t.Errorf("opened with another key: %v", err)
	}
}

// TestLogThatCannotGoOn: when somebody rewrites the log under a running authority, it
// signs no further head, says so, and goes on issuing.
func TestLogThatCannotGoOn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true, Profiles: profiles()}); err != nil {
		t.Fatal(err)
	}
	var logged logtest.Buffer
	reg := prometheus.NewRegistry()
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Registerer: reg, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	rec := httptest.NewRecorder()
	if a.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/log/head", nil)); rec.Code != http.StatusNotFound {
		t.Errorf("a head before there is one: %d %s", rec.Code, rec.Body)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.KeepLog(ctx) }()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !ok(); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: it did not happen; log: %s", what, logged.String())
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	issue := func() {
		t.Helper()
		if err := a.IssueOwn(t.Context()); err != nil {
			t.Error(err)
		}
	}
	issue()
	until("the first head", func() bool { return metricValue(t, reg, "artstore_ca_log_entries", "") == 1 })
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "pki.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	tamper := func(text string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	tamper(`CREATE TABLE aside AS SELECT * FROM log_state`)
	tamper(`UPDATE log_state SET edge = zeroblob(32)`)
	issue()
	until("the failure", func() bool { return metricValue(t, reg, "artstore_ca_log_failing", "") == 1 })
	until("its line in the log", func() bool { // which is written after the metric changes
		text := logged.String()
		return strings.Contains(text, "level=ERROR") && strings.Contains(text, "not the one that was signed")
	})
	issue()
	tamper(`UPDATE log_state SET edge = (SELECT edge FROM aside)`)
	until("the recovery", func() bool { return metricValue(t, reg, "artstore_ca_log_entries", "") == 3 })
	until("the end of it", func() bool { return strings.Contains(logged.String(), "log extended again") })
	if metricValue(t, reg, "artstore_ca_log_failing", "") != 0 || strings.Count(logged.String(), "log not extended") != 1 {
		t.Errorf("log: %s", logged.String())
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
