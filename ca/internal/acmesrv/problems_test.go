package acmesrv_test

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/testpki"
)

func with(m map[string]any, key string, v any) map[string]any {
	m = maps.Clone(m)
	m[key] = v
	return m
}

func rawCSR(t testing.TB, cn string, names ...string) map[string]string {
	return map[string]string{"csr": base64.RawURLEncoding.EncodeToString(acmetest.Request(t, testpki.Key(t), cn, names...))}
}

// Every problem that a client can cause has its status, its type, the fields that
// belong to it, and a detail that names the cause.
func TestACMEProblems(t *testing.T) {
	w := acmetest.Start(t, catest.Options{Edit: func(b []byte) []byte {
		return append(b, "\nlimits: {per_address: {per_second: 0}}\n"...) // each refusal is charged
	}})
	good, other := acmetest.NewRaw(t, w.CA), acmetest.NewRaw(t, w.CA)
	good.Register()
	other.Register()
	const accounts, orders, revoke, change = "/acme/acme/new-account", "/acme/acme/new-order", "/acme/acme/revoke-cert", "/acme/acme/key-change"
	pending, authz, challenges := good.NewOrder("web.example")
	gone, goneAuthz, _ := good.NewOrder("web.example")
	if status, _, _ := good.Post(goneAuthz, good.Sign(goneAuthz, map[string]string{"status": "deactivated"}, nil)); status != http.StatusOK {
		t.Fatal("deactivating an authorization")
	}
	cl := w.Account(t)
	own := *good
	ready := w.Proven(t, cl, "http-01", "web.example")
	readyBy := good.As(cl.Key, string(cl.KID))
	finalize := strings.TrimPrefix(ready.FinalizeURL, w.URL)
	root := base64.RawURLEncoding.EncodeToString(w.Roots()[0].Raw)
	p521 := acmetest.NewRaw(t, w.CA)
	var err error
	if p521.Key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf("n%d.web.example", i)
	}
	own.KID = ""
	for _, tc := range []struct {
		name    string
		by      *acmetest.Raw
		path    string
		payload any
		status  int
		kind    string
		detail  string
	}{
		{"P-521 account key", p521, accounts, map[string]any{}, 400, "badSignatureAlgorithm", "none of"},
		{"contact of another scheme", &own, accounts, map[string]any{"contact": []string{"tel:+123"}}, 400, "unsupportedContact", "mailto"},
		{"two addresses in a contact", &own, accounts, map[string]any{"contact": []string{"mailto:a@b.example,c@d.example"}}, 400, "invalidContact", "exactly one address"},
		{"header fields in a contact", &own, accounts, map[string]any{"contact": []string{"mailto:a@b.example?subject=x"}}, 400, "invalidContact", "exactly one address"},
		{"a long contact", &own, accounts, map[string]any{"contact": []string{"mailto:" + strings.Repeat("a", 1000) + "@b.example"}}, 400, "malformed", "1000 bytes"},
		{"no account object", &own, accounts, "[]", 400, "malformed", "not an account object"},
		{"no account of this key", acmetest.NewRaw(t, w.CA), accounts, map[string]any{"onlyReturnExisting": true}, 400, "accountDoesNotExist", "no account has this key"},
		{"new account by kid", good, accounts, map[string]any{}, 400, "malformed", "want jwk"},
		{"another account's address", other, strings.TrimPrefix(good.KID, w.URL), "", 403, "unauthorized", "another account"},
		{"another account's orders", other, strings.TrimPrefix(good.KID, w.URL) + "/orders", "", 403, "unauthorized", "another account"},
		{"a status that no account gets", good, strings.TrimPrefix(good.KID, w.URL), map[string]string{"status": "revoked"}, 400, "malformed", "deactivated, and nothing else"},
		{"a contact of nobody", good, strings.TrimPrefix(good.KID, w.URL), map[string]any{"contact": []string{"mailto:"}}, 400, "invalidContact", "exactly one"},

		{"no order", good, orders, "[]", 400, "malformed", "not an order"},
		{"a date that is none", good, orders, with(acmetest.OrderOf("web.example"), "notAfter", "tomorrow"), 400, "malformed", "RFC 3339"},
		{"no identifiers", good, orders, acmetest.OrderOf(), 400, "malformed", "no identifiers"},
		{"too many identifiers", good, orders, acmetest.OrderOf(many...), 400, "malformed", "more than 100"},
		{"an identifier of another type", good, orders, map[string]any{"identifiers": []any{map[string]string{"type": "email", "value": "a@b.example"}}}, 400, "unsupportedIdentifier", "neither of type dns nor ip"},
		{"a name as an address", good, orders, map[string]any{"identifiers": []any{map[string]string{"type": "ip", "value": "web.example"}}}, 400, "rejectedIdentifier", "not of type ip"},
		{"no name at all", good, orders, acmetest.OrderOf("a b"), 400, "rejectedIdentifier", "neither a DNS name"},
		{"an underscore", good, orders, acmetest.OrderOf("und_er.internal"), 400, "rejectedIdentifier", "underscore"},
		{"twice", good, orders, acmetest.OrderOf("web.example", "WEB.example"), 400, "rejectedIdentifier", "stands there twice"},
		{"a name of no profile", good, orders, acmetest.OrderOf("web.example", "evil.example"), 400, "rejectedIdentifier", "no profile with acme: true has all of"},
		{"names of two profiles", good, orders, acmetest.OrderOf("web.example", "other.example"), 400, "rejectedIdentifier", "no profile with acme: true has all of"},
		{"a name of several profiles", good, orders, acmetest.OrderOf("shared.example"), 400, "rejectedIdentifier", "name one as the profile"},
		{"a profile without acme", good, orders, with(acmetest.OrderOf("db.example"), "profile", "db"), 400, "invalidProfile", `only ["other" "third" "web"]`},
		{"a name of another profile", good, orders, with(acmetest.OrderOf("web.example"), "profile", "third"), 400, "rejectedIdentifier", `profile "third" does not have all of ["web.example"]`},
		{"the authority's machine", good, orders, acmetest.OrderOf("localhost"), 400, "rejectedIdentifier", "machine of the authority"},
		{"a begin in years", good, orders, with(acmetest.OrderOf("web.example"), "notBefore", "2031-01-01T00:00:00Z"), 400, "malformed", "begins when it is issued"},
		{"an end in the past", good, orders, with(acmetest.OrderOf("web.example"), "notAfter", "2020-01-01T00:00:00Z"), 400, "malformed", "in the past"},
		{"an end in years", good, orders, with(acmetest.OrderOf("web.example"), "notAfter", time.Now().AddDate(3, 0, 0).Format(time.RFC3339)), 400, "malformed", "profiles.web.lifetime.max"},

		{"an order that is not there", good, "/acme/acme/order/nothing", "", 404, "malformed", `no order "nothing"`},
		{"another account's order", other, pending, "", 403, "unauthorized", "another account"},
		{"an order with a payload", good, pending, "{}", 400, "malformed", "must be empty"},
		{"an authorization that is not there", good, "/acme/acme/authz/nothing", "", 404, "malformed", `no authorization "nothing"`},
		{"another account's authorization", other, authz, "", 403, "unauthorized", "another account"},
		{"an authorization made valid", good, authz, map[string]string{"status": "valid"}, 400, "malformed", "deactivated"},
		{"a challenge that is not there", good, "/acme/acme/challenge/a/b", "{}", 404, "malformed", `no challenge "b"`},
		{"another account's challenge", other, challenges["http-01"], "{}", 403, "unauthorized", "another account"},
		{"a certificate that is not there", good, "/acme/acme/certificate/1", "", 404, "malformed", `no certificate "1"`},

		{"finalizing a pending order", good, pending + "/finalize", rawCSR(t, "", "web.example"), 403, "orderNotReady", "the order is pending"},
		{"the state is looked at first", good, pending + "/finalize", "[]", 403, "orderNotReady", "the order is pending"},
		{"finalizing an invalid order", good, gone + "/finalize", rawCSR(t, "", "web.example"), 403, "orderNotReady", "an authorization was deactivated"},
		{"finalizing another's order", good, finalize, rawCSR(t, "", "web.example"), 403, "unauthorized", "another account"},
		{"no CSR", readyBy, finalize, "[]", 400, "malformed", "not {csr}"},
		{"a CSR in another alphabet", readyBy, finalize, map[string]string{"csr": "+/=="}, 400, "malformed", "not base64url"},
		{"noise for a CSR", readyBy, finalize, map[string]string{"csr": "AAAA"}, 400, "badCSR", "does not parse"},
		{"another name in the CSR", readyBy, finalize, rawCSR(t, "", "web.example", "api.example"), 400, "badCSR", `the names ["api.example" "web.example"], the order for ["web.example"]`},
		{"another common name", readyBy, finalize, rawCSR(t, "evil.example", "web.example"), 400, "badCSR", `the names ["evil.example" "web.example"], the order for ["web.example"]`},

		{"no revocation", good, revoke, "[]", 400, "malformed", "{certificate, reason}"},
		{"a reason that is none", good, revoke, map[string]any{"certificate": root, "reason": 7}, 400, "badRevocationReason", "7 is not a reason"},
		{"a certificate that is none", good, revoke, map[string]any{"certificate": "AAAA"}, 400, "malformed", "does not parse"},
		{"a certificate of the authority", good, revoke, map[string]any{"certificate": root}, 403, "unauthorized", "not in the record"},

		{"a key change without a JWS", good, change, map[string]any{}, 400, "malformed", "not a JWS"},
		{"key change by jwk", acmetest.NewRaw(t, w.CA), change, map[string]any{}, 400, "malformed", "want kid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := tc.by.As(tc.by.Key, tc.by.KID)
			r.T = t
			status, kind, p, h := r.PostProblem(tc.path, r.Sign(tc.path, tc.payload, nil))
			if status != tc.status || kind != tc.kind || !strings.Contains(p.Detail, tc.detail) || p.Status != status {
				t.Errorf("%d %s %q (status %d), want %d %s with %q", status, kind, p.Detail, p.Status, tc.status, tc.kind, tc.detail)
			}
			if h.Get("Replay-Nonce") == "" || h.Get("Content-Type") != "application/problem+json" || !strings.Contains(h.Get("Link"), `/directory>;rel="index"`) {
				t.Errorf("headers: %v", h)
			}
			if want := kind == "badSignatureAlgorithm"; (len(p.Algorithms) > 0) != want {
				t.Errorf("algorithms: %v", p.Algorithms)
			}
		})
	}
	_, _, p, _ := good.PostProblem(orders, good.Sign(orders, acmetest.OrderOf("web.example", "evil.example", "mean.example"), nil))
	if len(p.Subproblems) != 2 || p.Subproblems[0].Identifier.Value != "evil.example" || p.Subproblems[1].Identifier.Type != "dns" || !strings.HasSuffix(p.Subproblems[0].Type, ":rejectedIdentifier") {
		t.Errorf("subproblems: %+v", p.Subproblems)
	}
	w.Check(t)
}

// Methods and addresses that ACME does not have are problems too (RFC 8555 §6.3),
// and what may be read with GET may be read with HEAD.
func TestACMEMethods(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := acmetest.NewRaw(t, w.CA)
	for _, tc := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/acme/acme/directory", 200},
		{"HEAD", "/acme/acme/directory", 200},
		{"GET", "/acme/acme/new-nonce", 204},
		{"HEAD", "/acme/acme/new-nonce", 200},
		{"GET", "/acme/acme/new-order", 405},
		{"GET", "/acme/acme/order/x", 405},
		{"POST", "/acme/acme/directory", 405},
		{"GET", "/acme/acme/renewal-info", 404},
		{"GET", "/acme/other/directory", 404},
		{"GET", "/acme/other/new-nonce", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, w.URL+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := cl.HTTP.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != tc.status {
			t.Errorf("%s %s: %d %s, %v", tc.method, tc.path, resp.StatusCode, data, err)
		}
		if strings.HasSuffix(tc.path, "new-nonce") && tc.status < 300 && (resp.Header.Get("Replay-Nonce") == "" || resp.Header.Get("Cache-Control") != "no-store") {
			t.Errorf("%s %s: %v", tc.method, tc.path, resp.Header)
		}
		if tc.status >= 400 && (resp.Header.Get("Content-Type") != "application/problem+json" || !bytes.Contains(data, []byte(":malformed"))) {
			t.Errorf("%s %s: %s", tc.method, tc.path, data)
		}
	}
}

// A challenge that fails says why, with address and status; neither the answer nor
// the log has anything of what was found.
func TestACMEChallengeProblems(t *testing.T) {
	const canary = "CANARY-of-the-server"
	var log logtest.Buffer
	var serving atomic.Pointer[http.Handler]
	w := acmetest.Start(t, catest.Options{Wrap: func(h http.Handler) http.Handler {
		serving.Store(&h)
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*serving.Load()).ServeHTTP(rw, r) })
	}})
	second, err := ca.Open(t.Context(), ca.Options{Dir: w.Dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = second.Close() })
	h := second.Handler()
	serving.Store(&h)
	r := acmetest.NewRaw(t, w.CA)
	r.Register()
	for _, tc := range []struct{ name, challenge, content, kind, detail string }{
		{"another content", "http-01", canary, "incorrectResponse", "status 200, but its content is not the key authorization"},
		{"not there", "http-01", "", "incorrectResponse", "status 404"},
		{"a redirect", "http-01", "redirect /" + canary, "incorrectResponse", "redirects are not followed"},
		{"no record", "dns-01", "", "dns", "_acme-challenge.web.example"},
		{"another record", "dns-01", canary, "incorrectResponse", "none of the 1 TXT records"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			order, authz, challenges := r.NewOrder("web.example")
			path := challenges[tc.challenge]
			w.SetTXT("_acme-challenge.web.example")
			if tc.content != "" {
				w.SetFile("/.well-known/acme-challenge/"+challenges["token"], tc.content)
				w.SetTXT("_acme-challenge.web.example", tc.content)
			}
			_, _, resp := r.Post(path, r.Sign(path, "{}", nil))
			var ch struct {
				Status string
				Error  acmetest.Problem
			}
			data, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, &ch); err != nil {
				t.Fatal(err)
			}
			if ch.Status != "invalid" || ch.Error.Type != "urn:ietf:params:acme:error:"+tc.kind || !strings.Contains(ch.Error.Detail, tc.detail) {
				t.Errorf("%s", data)
			}
			if tc.challenge == "http-01" && !strings.Contains(ch.Error.Detail, "127.0.0.1:") {
				t.Errorf("%q has no address", ch.Error.Detail)
			}
			for _, path := range []string{order, authz} {
				if _, _, resp := r.Post(path, r.Sign(path, "", nil)); resp != nil {
					if data, _ := io.ReadAll(resp.Body); !bytes.Contains(data, []byte(`"status":"invalid"`)) || !bytes.Contains(data, []byte(tc.kind)) {
						t.Errorf("%s: %s", path, data)
					}
				}
			}
		})
	}
	text := log.String()
	if strings.Contains(text, canary) || strings.Contains(text, ".go:") || strings.Count(text, "challenge failed") != 5 {
		t.Errorf("the log: %s", text)
	}
}

// Kinds of keys that no profile has are refused with their reason.
func TestACMEAccountKeys(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weak.N.Rsh(weak.N, 200)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const path = "/acme/acme/new-account"
	r := acmetest.NewRaw(t, w.CA)
	r.Key = ed
	if status, kind, p, _ := r.PostProblem(path, r.Sign(path, map[string]any{}, nil)); status != http.StatusCreated {
		t.Errorf("Ed25519: %d %s %q", status, kind, p.Detail)
	}
	head := map[string]any{"alg": "RS256", "nonce": r.Nonce(), "url": r.URL + path, "jwk": map[string]string{
		"kty": "RSA", "n": base64.RawURLEncoding.EncodeToString(weak.N.Bytes()), "e": "AQAB",
	}}
	protected, err := json.Marshal(head)
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"protected":%q,"payload":"e30","signature":"AAAA"}`, base64.RawURLEncoding.EncodeToString(protected))
	if status, kind, p, _ := r.PostProblem(path, body); status != 400 || kind != "badPublicKey" || !strings.Contains(p.Detail, "RSA key of 1848 bits") {
		t.Errorf("%d %s %q", status, kind, p.Detail)
	}
}

// A first order goes through under 2000 registrations of another address
// (RFC 8555 §6.6), which make 100 accounts and then none.
func TestACMEFirstOrderInAFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	const from, path = "X-Test-From", "/acme/acme/new-account"
	w := acmetest.Start(t, catest.Options{
		Wrap: func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				r.RemoteAddr = cmp.Or(r.Header.Get(from), r.RemoteAddr)
				h.ServeHTTP(rw, r)
			})
		},
		Edit: func(b []byte) []byte { return append(b, "\nlimits: {per_address: {per_second: 0}}\n"...) }, // only that of accounts
	})
	cl := w.Account(t)
	var wg sync.WaitGroup
	var made atomic.Int32
	flood := acmetest.NewRaw(t, w.CA)
	for range 4 {
		wg.Go(func() {
			for range 500 {
				r := flood.As(testpki.Key(t), "")
				if status, _, _ := r.Post(path, r.Sign(path, map[string]any{}, nil), from, "192.0.2.66:1"); status == http.StatusCreated {
					made.Add(1)
				}
			}
		})
	}
	w.Obtain(t, cl, "http-01", "web.example")
	wg.Wait()
	w.Obtain(t, cl, "http-01", "web.example")
	if n := made.Load(); n < 100 || n > 110 { // some more come while the test runs
		t.Errorf("%d accounts of one address", n)
	}
}

// An address that has made its accounts is told when to come again.
func TestACMERegistrationFlood(t *testing.T) {
	const from = "X-Test-From"
	w := acmetest.Start(t, catest.Options{Wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			r.RemoteAddr = cmp.Or(r.Header.Get(from), r.RemoteAddr)
			h.ServeHTTP(rw, r)
		})
	}}, ", accounts_per_hour: 3")
	const path = "/acme/acme/new-account"
	var limited int
	for i := range 8 {
		r := acmetest.NewRaw(t, w.CA)
		status, kind, p, h := r.PostProblem(path, r.Sign(path, map[string]any{}, nil))
		if status == http.StatusCreated && i < 3 {
			continue
		}
		limited++
		if status != http.StatusTooManyRequests || kind != "rateLimited" || h.Get("Retry-After") == "" || !strings.Contains(p.Detail, "accounts_per_hour") {
			t.Errorf("%d: %d %s %q", i, status, kind, p.Detail)
		}
	}
	if limited != 5 {
		t.Errorf("%d of 8 were limited, want 5", limited)
	}
	if n := acmetest.CountRows(t, w.Dir, "acme_accounts"); n != 3 {
		t.Errorf("%d accounts", n)
	}
	// From another address it goes on.
	r := acmetest.NewRaw(t, w.CA)
	if status, kind, p, _ := r.PostProblem(path, r.Sign(path, map[string]any{}, nil), from, "192.0.2.1:1"); status != http.StatusCreated {
		t.Errorf("%d %s %q", status, kind, p.Detail)
	}
}
