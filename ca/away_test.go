package ca_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/internal/pgtest"
)

// While the database is not available, a request is answered 503 with Retry-After
// (RFC 9110 §15.6.4), because the same request will succeed later.
func wantAway(t *testing.T, c *catest.CA, method, path string, body any) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, c.URL+path, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := newClient(t, c, nil).http.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s: %s, Retry-After %q; want 503", path, resp.Status, resp.Header.Get("Retry-After"))
	}
	_ = resp.Body.Close()
}

func TestDatabaseStopped(t *testing.T) {
	t.Parallel()
	var server pgtest.Server // one of its own, because it is stopped
	t.Cleanup(server.Stop)
	w := acmetest.Start(t, catest.Options{Database: server.Database(t)})
	token := w.Token(t, "web", "web.example")
	server.Stop()
	wantAway(t, w.CA, "POST", "/sign", signRequest(t, token, newKey(t), "web", "web.example"))
	wantAway(t, w.CA, "GET", "/crl", nil)
	wantAway(t, w.CA, "HEAD", "/acme/acme/new-nonce", nil)
	if status, _ := newClient(t, w.CA, nil).do("GET", "/health", nil); status != http.StatusOK {
		t.Errorf("health without the database: %d", status)
	}
}

func TestDatabaseLocked(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel() // it waits for SQLite to give up
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	db, err := sql.Open("sqlite", "file:"+filepath.Join(c.Dir, "pki.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	token, key := c.Token(t, "storage", "storage"), newKey(t)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	wantAway(t, c, "POST", "/sign", signRequest(t, token, key, "storage", "storage"))
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if status, body := newClient(t, c, nil).do("POST", "/sign", signRequest(t, token, key, "storage", "storage")); status != http.StatusCreated {
		t.Errorf("the same request afterwards: %d %s", status, body)
	}
}

// HEAD is answered on each route that has GET (RFC 9110 §9.1), with the same header
// and no body.
func TestHead(t *testing.T) {
	t.Parallel()
	c := acmetest.Start(t, catest.Options{}).CA
	headOf(t, c, 1) // so that no head is signed between the two requests
	cl := newClient(t, c, nil)
	for _, path := range []string{"/health", "/roots", "/roots.pem", "/crl", "/crl?pem", "/revoked", "/1.0/crl", "/log/head", "/nowhere", "/acme/acme/directory"} {
		want, _ := cl.do("GET", path, nil)
		if status, body := cl.do("HEAD", path, nil); status != want || len(body) > 0 {
			t.Errorf("HEAD %s: %d with %d bytes, GET: %d", path, status, len(body), want)
		}
	}
	if status, _ := cl.do("HEAD", "/sign", nil); status != http.StatusMethodNotAllowed {
		t.Errorf("HEAD of a route that only takes POST: %d", status)
	}
}
