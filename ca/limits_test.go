package ca_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// The limit on bodies holds for the whole body, also behind the first object in it.
func TestBodyLimits(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	good, err := json.Marshal(signRequest(t, c.Token(t, "storage"), newKey(t), "storage", "storage", "localhost", "127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, body string
		status     int
	}{
		{"blanks beyond the limit", string(good) + strings.Repeat(" ", 70<<10), http.StatusRequestEntityTooLarge},
		{"one field beyond the limit", `{"csr":"` + strings.Repeat("x", 64<<10) + `"}`, http.StatusRequestEntityTooLarge},
		{"a second object", string(good) + "{}", http.StatusBadRequest},
		{"rubbish behind", string(good) + "x", http.StatusBadRequest},
		{"no object", "[]", http.StatusBadRequest},
		{"nothing", "", http.StatusBadRequest},
		{"a newline behind", string(good) + "\n", http.StatusCreated},
	} {
		if status, body := newClient(t, c, nil).do("POST", "/sign", tc.body); status != tc.status {
			t.Errorf("%s: %d %.200s, want %d", tc.name, status, body, tc.status)
		}
	}
	c.Check(t)
}

// The text that a refused caller gets into the record is short and valid UTF-8.
func TestRefusalsAreClipped(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	long := strings.Repeat("ä", 200) + ".example"
	var names []string
	for i := range 50 {
		names = append(names, strings.Repeat("x", i+1)+".example")
	}
	status, _ := newClient(t, c, nil).do("POST", "/sign", signRequest(t, c.Token(t, "storage"), newKey(t), "storage", names...))
	if status != http.StatusForbidden {
		t.Fatalf("%d, want 403", status)
	}
	events, err := openRecord(t, c).Events(t.Context(), "refused", 0, 10)
	if err != nil || len(events) != 1 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	if d := events[0].Detail; len(d) > 520 || !utf8.ValidString(d) || strings.Contains(d, long) {
		t.Errorf("%d bytes recorded: %q", len(d), d)
	}
}

// The same token and key get the same certificate again until it expires, and then
// none.
func TestNoSecondLifeForAToken(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	enrol(t, c, "storage", "storage")
	entry := listAll(t, c)[0]
	if err := c.Authority.HandOutAgain(t.Context(), entry); err != nil {
		t.Errorf("a valid certificate was not handed out again: %v", err)
	}
	entry.NotAfter = time.Now().Add(-time.Second)
	if err := c.Authority.HandOutAgain(t.Context(), entry); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired certificate was handed out again: %v", err)
	}
}

// The commit of a trust change is current.json. A failure to write the copies for
// people does not undo the change, and a start without the copies works.
func TestTrustChangeSurvivesBlockedCopies(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	path := filepath.Join(c.Dir, "certs", "root_ca.crt")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Authority.ChangeTrust(t.Context(), "operator", stepapi.TrustChange{Step: stepapi.StepAdd}); err != nil {
		t.Fatalf("adding a root: %v", err)
	}
	if n := len(c.Roots()); n != 2 {
		t.Errorf("%d roots in effect, want 2", n)
	}
	again, err := ca.Open(t.Context(), ca.Options{Dir: c.Dir})
	if err != nil {
		t.Fatalf("opening again: %v", err)
	}
	defer func() { _ = again.Close() }()
	if n := len(again.Roots()); n != 2 {
		t.Errorf("%d roots after a restart, want 2", n)
	}
}
