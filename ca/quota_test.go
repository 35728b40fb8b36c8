package ca_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// A credential has so many recorded refusals in an hour. Among too many credentials
// the one that was quiet for longest is forgotten, and no other.
func TestQuota(t *testing.T) {
	t.Parallel()
	var q ca.Quota
	now := time.Now()
	take := func(id string, n int, at time.Time) (recorded int) {
		for range n {
			if q.Take(id, 100, at) {
				recorded++
			}
		}
		return recorded
	}
	if n := take("a", 500, now); n != 100 {
		t.Errorf("%d recorded in an hour, want 100", n)
	}
	if n := take("b", 1, now); n != 1 {
		t.Error("another credential shares the count")
	}
	for i := range 9_998 {
		take(fmt.Sprint(i), 1, now)
	}
	if n := take("a", 1, now.Add(59*time.Minute)); n != 0 {
		t.Error("the count was forgotten before the hour was over")
	}
	take("one more", 1, now) // which makes room by forgetting b
	if n := q.Len(); n != 10_000 {
		t.Errorf("%d credentials remembered, want 10000", n)
	}
	if n := take("a", 1, now.Add(59*time.Minute)); n != 0 {
		t.Error("the count of a credential in use was forgotten")
	}
	if n := take("b", 100, now); n != 100 {
		t.Errorf("%d recorded of the oldest credential, want a new count", n)
	}
	if n := take("a", 500, now.Add(time.Hour)); n != 100 {
		t.Errorf("%d recorded in the next hour", n)
	}
}

func refusedEvents(t testing.TB, c *catest.CA) []record.Event {
	t.Helper()
	events, err := openRecord(t, c).Events(t.Context(), "refused", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// A caller that is refused again and again, with any of its credentials and under any
// name, leaves a bounded number of rows, and none of them names another service as the
// caller. Refusals of other callers are still recorded after that.
func TestRefusalsAreCountedByCredential(t *testing.T) {
	t.Parallel()
	root, device := foreignHolder(t, "serial-4711", "storage")
	file := filepath.Join(t.TempDir(), "devices.pem")
	if err := os.WriteFile(file, pemfile.EncodeCertificates([]*x509.Certificate{root}), 0o600); err != nil {
		t.Fatal(err)
	}
	provisioners := ownX5C + fmt.Sprintf("  - {type: X5C, name: devices, roots: %q}\n", file)
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: func(b []byte) []byte {
		return limitsOf("{per_address: {per_second: 0}, per_service: {per_second: 0}}")(withProvisioner(provisioners)(b))
	}})
	thief, peer, victim := enrol(t, c, "storage", "storage"), enrol(t, c, "storage", "storage"), enrol(t, c, "ingester", "ingester")
	cl, key := newClient(t, c, nil), newKey(t)
	x5c := func(cert *tls.Certificate, issuer string) func(i int) (int, []byte) {
		return func(i int) (int, []byte) {
			sub := []string{"ingester", fmt.Sprintf("x%d", i)}[i%2]
			claims := map[string]any{"sub": sub, "sans": []string{"storage"}, "iss": issuer, "aud": c.URL + "/1.0/sign#x5c/" + issuer}
			return cl.do("POST", "/sign", x5cToken(t, c, cert, "/sign", claims).request(t, key, sub, "storage"))
		}
	}
	one := c.Token(t, "storage", "storage").Expose()
	for _, tc := range []struct {
		name string
		most int
		ask  func(i int) (int, []byte)
	}{
		{"X5C, a certificate of ours", 100, x5c(thief, "holders")},
		{"X5C, a certificate of another authority", 100, x5c(device, "devices")},
		{"one token", 10, func(int) (int, []byte) {
			return cl.do("POST", "/sign", stepapi.SignRequest{OTT: one, CSR: csr(t, key, "storage", "localhost")})
		}},
		{"tokens of an enrolment key for any service", 90, func(i int) (int, []byte) {
			sub := fmt.Sprintf("x%d", i)
			token, err := ca.TokenFor(c.Dir, sub, sub)
			if err != nil {
				t.Fatal(err)
			}
			return cl.do("POST", "/sign", signRequest(t, token, key, sub, sub))
		}},
		{"a peer", 100, func(int) (int, []byte) {
			return newClient(t, c, peer).do("GET", "/records/certificates", nil)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(refusedEvents(t, c))
			for i := range 150 {
				if status, body := tc.ask(i); status != http.StatusForbidden {
					t.Fatalf("request %d: %d %s", i, status, body)
				}
			}
			events := refusedEvents(t, c)
			if n := len(events) - before; n > tc.most || n < tc.most-1 {
				t.Errorf("%d refusals recorded, want %d", n, tc.most)
			}
			for _, e := range events {
				if e.Service == "ingester" {
					t.Fatalf("the record blames another service: %+v", e)
				}
			}
		})
	}
	before := len(refusedEvents(t, c))
	if status, body := newClient(t, c, victim).do("GET", "/records/certificates", nil); status != http.StatusForbidden {
		t.Fatalf("the victim: %d %s", status, body)
	}
	if events := refusedEvents(t, c); len(events) != before+1 || events[before].Service != "ingester" {
		t.Errorf("%d refusals recorded, want that of the victim as number %d", len(events), before+1)
	}
}
