package enroll_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// filler is a text of so many letters.
type filler int

func (f *filler) Read(p []byte) (int, error) {
	if *f == 0 {
		return 0, io.EOF
	}
	n := min(len(p), int(*f))
	copy(p, bytes.Repeat([]byte{'x'}, n))
	*f -= filler(n)
	return n, nil
}

// TestListsBeyondTheLimit expects that an answer above the limit is an error and that
// the lists in effect stay. An answer with exactly the limit is read.
func TestListsBeyondTheLimit(t *testing.T) {
	a, url := listen(t)
	var log logtest.Buffer
	cfg := enroll.Config{URL: url, Dir: t.TempDir(), Token: once(a.token("svc", "svc")), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Timeout: 5 * time.Minute} // 64 MiB under the race detector, on a busy machine
	if _, err := enroll.Issue(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	before, err := enroll.Renew(t.Context(), cfg)
	if err != nil || len(before.Revoked) != 1 {
		t.Fatalf("%d lists: %v", len(before.Revoked), err)
	}
	for extra, told := range []bool{false, true} { // in this order: the log goes on
		a.mu.Lock()
		a.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, stepapi.PathRevoked) {
				return false
			}
			const head, tail = `{"other":"`, `","lists":[]}`
			rest := filler(stepapi.MaxRevoked - len(head) - len(tail) + extra)
			_, _ = io.Copy(w, io.MultiReader(strings.NewReader(head), &rest, strings.NewReader(tail)))
			return true
		}
		a.mu.Unlock()
		m, err := enroll.Renew(t.Context(), cfg)
		if err != nil || len(m.Revoked) != 1 || !bytes.Equal(m.Revoked[0].Raw, before.Revoked[0].Raw) {
			t.Errorf("%d bytes more: %d lists, %v", extra, len(m.Revoked), err)
		}
		if got := strings.Contains(log.String(), "is longer than 67108864 bytes"); got != told {
			t.Errorf("%d bytes more: told %v:\n%s", extra, got, log.String())
		}
	}
}

// TestListsThatAreNone expects an error for each kind of answer that is no list.
func TestListsThatAreNone(t *testing.T) {
	for body, want := range map[string]string{
		``:                      "not the JSON expected",
		`[]`:                    "not the JSON expected",
		`{"lists":{}}`:          "not the JSON expected",
		`{"lists":["x"]}`:       "not the JSON expected",
		`{"lists":[]} x`:        "not the JSON expected",
		`{"lists":[{"issuer":`:  "unexpected EOF",
		`{"other":`:             "not the JSON expected",
		`{"lists":[{}]}`:        "parsing certificates",
		`{"lists":[`:            "not the JSON expected",
		`{"other":[1],"lists":`: "not the JSON expected",
	} {
		a, url := listen(t)
		var log logtest.Buffer
		cfg := enroll.Config{URL: url, Dir: t.TempDir(), Token: once(a.token("svc", "svc")), Logger: slog.New(slog.NewTextHandler(&log, nil))}
		if _, err := enroll.Issue(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		a.mu.Lock()
		a.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, stepapi.PathRevoked) {
				return false
			}
			_, _ = io.WriteString(w, body)
			return true
		}
		a.mu.Unlock()
		if _, err := enroll.Renew(t.Context(), cfg); err != nil || !strings.Contains(log.String(), want) {
			t.Errorf("%s: %v; want …%s… in\n%s", body, err, want, log.String())
		}
	}
}

// TestStaleListsAreNotReady expects that a list that cannot be refreshed stays in
// effect. Once it is out of date, neither the source nor the identity is ready, and both
// say why, until the next list comes.
func TestStaleListsAreNotReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 7*24*time.Hour)
		src := w.source()
		if err := src.Check(); err == nil {
			t.Error("ready before there is a certificate")
		}
		id, err := rotation.Open(t.Context(), rotation.Config{Source: src, Logger: w.cfg.Logger})
		if err != nil {
			t.Fatal(err)
		}
		merged, err := rotation.Open(t.Context(), rotation.Config{Source: rotation.Merge(rotation.Static(readDir(t, w.cfg.Dir)), w.other(t)), Logger: w.cfg.Logger})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		w.ca.setFault(func(r *http.Request) *stepapi.Error {
			if strings.HasSuffix(r.URL.Path, stepapi.PathRevoked) {
				return &stepapi.Error{Status: http.StatusServiceUnavailable, Message: "the disk is full"}
			}
			return nil
		})
		checks := map[string]func() error{"source": src.Check, "identity": id.Check, "merged": merged.Check}
		time.Sleep(21 * time.Hour)
		for name, check := range checks {
			if err := check(); err != nil {
				t.Errorf("%s: while the list is good: %v", name, err)
			}
		}
		time.Sleep(4 * time.Hour)
		for name, check := range checks {
			err := check()
			if err == nil || !strings.Contains(err.Error(), "to be replaced by") || !strings.Contains(err.Error(), "the disk is full") {
				t.Errorf("%s: past its next update: %v", name, err)
			}
		}
		w.ca.setFault(nil)
		time.Sleep(2 * time.Hour)
		for name, check := range checks {
			if err := check(); err != nil {
				t.Errorf("%s: with the next list: %v", name, err)
			}
		}
		if err := merged.Close(); err != nil {
			t.Error(err)
		}
		if err := id.Close(); err != nil {
			t.Error(err)
		}
	})
}

// other is a source of its own beside that of w.
func (w *world) other(t *testing.T) *enroll.Source {
	t.Helper()
	cfg := w.cfg
	cfg.Dir = t.TempDir()
	cfg.Token = once(w.ca.token("ingester", "ingester", "10.0.0.7", "spiffe://artstore/ingester"))
	src, err := enroll.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return src
}
