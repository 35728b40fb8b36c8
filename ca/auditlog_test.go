package ca_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/secret"
)

// told reads an audit log. An unknown field is an error, so that none is added without
// a test.
func told(t testing.TB, path string) (lines []map[string]any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var v map[string]any
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, v)
	}
	return lines
}

// The audit log has a line for each certificate issued or revoked and each request
// refused, with caller and address. It has none for requests that are not
// authenticated, and no token.
func TestAuditLog(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: func(b []byte) []byte { return append(b, "audit_log: audit.jsonl\n"...) }})
	path := filepath.Join(c.Dir, "audit.jsonl")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	token, key := c.Token(t, "storage"), newKey(t)
	req := signRequest(t, token, key, "storage", "storage", "localhost", "127.0.0.1")
	var cert = pair(t, mustDo(t, newClient(t, c, nil), "/sign", req, http.StatusCreated), key)
	mustDo(t, newClient(t, c, nil), "/sign", req, http.StatusCreated)
	mustDo(t, newClient(t, c, nil), "/sign", forged(t, c), http.StatusUnauthorized)
	mustDo(t, newClient(t, c, nil), "/sign", signRequest(t, c.Token(t, "storage", "storage"), key, "storage", "evil"), http.StatusForbidden)
	mustDo(t, newClient(t, c, cert), "/renew", nil, http.StatusCreated)
	serial := cert.Leaf.SerialNumber.String()
	mustDo(t, newClient(t, c, cert), "/revoke", map[string]any{"serial": serial, "passive": true}, http.StatusOK)
	if n, err := openRecord(t, c).RevokeSet(t.Context(), record.Selection{Lineage: serial}, 1, ""); err != nil || n != 1 {
		t.Errorf("the lineage: %d %v", n, err)
	}
	c.Revoke(t, enrol(t, c, "ingester", "ingester").Leaf.SerialNumber.String())

	type line struct{ action, outcome, caller, service, rule string }
	by := "certificate storage/" + serial
	want := []line{
		{"sign", "done", "the authority", "ca", ""},
		{"sign", "done", "token enrolment/storage", "storage", ""},
		{"sign", "again", "token enrolment/storage", "storage", ""},
		{"sign", "refused", "token enrolment/storage", "storage", "request equals token"},
		{"renew", "done", by, "storage", ""},
		{"revoke", "done", by, "storage", ""},
		{"revoke", "done", "operator", "", ""},
		{"sign", "done", "token enrolment/ingester", "ingester", ""},
		{"revoke", "done", "operator", "", ""},
	}
	lines := told(t, path)
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d: %v", len(lines), len(want), lines)
	}
	text := func(v any) string { s, _ := v.(string); return s }
	for i, l := range lines {
		got := line{text(l["action"]), text(l["outcome"]), text(l["caller"]), text(l["service"]), text(l["rule"])}
		if got != want[i] {
			t.Errorf("line %d: %+v, want %+v", i, got, want[i])
		}
		local := got.caller == "operator" || got.caller == "the authority"
		if local != (text(l["address"]) == "") || !local && !strings.HasPrefix(text(l["address"]), "127.0.0.1:") || text(l["time"]) == "" {
			t.Errorf("line %d: from %v at %v", i, l["address"], l["time"])
		}
		if got.outcome == "done" && text(l["serial"]) == "" {
			t.Errorf("line %d names no serial", i)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil || bytes.Contains(data, []byte(token.Expose())) || bytes.Contains(data, []byte("eyJ")) {
		t.Errorf("a token is in the log, or %v", err)
	}
	c.Check(t)
}

func mustDo(t testing.TB, cl *client, path string, body any, want int) []byte {
	t.Helper()
	status, answer := cl.do("POST", path, body)
	if status != want {
		t.Fatalf("%s: %d %s, want %d", path, status, answer, want)
	}
	return answer
}

// A reload writes to a new file after the old one was renamed. If the new file cannot
// be opened, the old one stays in use. A line that cannot be written is counted and
// stops no certificate, but it stops a command.
func TestAuditLogRotates(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true, Profiles: profiles()}); err != nil {
		t.Fatal(err)
	}
	logs := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	path, reg := filepath.Join(logs, "audit"), prometheus.NewRegistry()
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, AuditLog: path, Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	issue := func() {
		t.Helper()
		if err := a.IssueOwn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	issue()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	issue() // before the reload the line goes into the renamed file
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	issue()
	if old, now := len(told(t, path+".1")), len(told(t, path)); old != 2 || now != 1 {
		t.Errorf("%d lines in the old file, %d in the new one", old, now)
	}
	if err := os.Rename(logs, logs+".gone"); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reload: %v", err)
	}
	issue()
	if n := len(told(t, filepath.Join(logs+".gone", "audit"))); n != 2 {
		t.Errorf("%d lines after a reload that failed, want 2", n)
	}
	a.BreakAuditLog()
	issue()
	if v := metricValue(t, reg, "artstore_ca_audit_log_failures_total", ""); v != 1 {
		t.Errorf("%v failures counted", v)
	}
	damage.Config(t, dir, "audit_log: /nonexistent/audit\n")
	r, err := ca.StateDir(dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	list, _, err := r.List(t.Context(), record.Query{Limit: 1})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d %v", len(list), err)
	}
	if err := r.Revoke(t.Context(), list[0].Serial, 1, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("revoked without a log: %v", err)
	}
	if c, err := r.Show(t.Context(), list[0].Serial); err != nil || c.Revocation != nil {
		t.Errorf("%+v %v", c.Revocation, err)
	}
	if _, err := ca.Open(t.Context(), ca.Options{Dir: dir}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("opened without its log: %v", err)
	}
}

// A line that is written while a reload replaces the file is in the old file or in the
// new one.
func TestReloadLosesNoLine(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		t.Fatal(err)
	}
	path, reg := filepath.Join(t.TempDir(), "audit"), prometheus.NewRegistry()
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, AuditLog: path, Registerer: reg, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	const writers, each = 4, 500
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range each {
				a.Tell(t.Context())
			}
		})
	}
	ended := make(chan struct{})
	go func() { writing.Wait(); close(ended) }()
	for going := true; going; {
		select {
		case <-ended:
			going = false
		default:
			if err := a.Reload(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if n := len(told(t, path)); n != writers*each {
		t.Errorf("%d of %d lines", n, writers*each)
	}
	if v := metricValue(t, reg, "artstore_ca_audit_log_failures_total", ""); v != 0 {
		t.Errorf("%v failures counted", v)
	}
}

// A reload reads the password file again. With a wrong password nothing changes.
func TestReloadReadsThePassword(t *testing.T) {
	t.Parallel()
	dir, password := filepath.Join(t.TempDir(), "pki"), filepath.Join(t.TempDir(), "password")
	damage.File(t, password, []byte("one password\n"))
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, Password: secret.New("one password")}); err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, PasswordFile: password})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	for content, want := range map[string]string{"two\n": "wrong password", "one password\n": ""} {
		damage.File(t, password, []byte(content))
		err := a.Reload(t.Context())
		if got := err != nil && strings.Contains(err.Error(), "wrong password"); got != (want != "") {
			t.Errorf("password %q: %v", content, err)
		}
		if err := a.Ready(t.Context()); err != nil {
			t.Errorf("not ready after password %q: %v", content, err)
		}
	}
	if err := os.Remove(password); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), password) {
		t.Errorf("no password file: %v", err)
	}
}
