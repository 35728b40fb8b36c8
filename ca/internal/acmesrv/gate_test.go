package acmesrv_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
)

// acmeTables are the tables that ACME writes to, except for the key of nonces.
var acmeTables = []string{"acme_nonces", "acme_accounts", "acme_orders", "acme_authorizations", "acme_challenges", "events", "used_tokens"}

// A request with any wrong part is refused, nothing is stored for it, and the answer has the
// nonce for another try.
func TestACMEGate(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	good := acmetest.NewRaw(t, w.CA)
	good.Register()
	other, big := acmetest.NewRaw(t, w.CA), acmetest.NewRaw(t, w.CA)
	other.KID = good.KID // not its account
	var err error
	if big.Key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	const path, accounts = "/acme/acme/new-order", "/acme/acme/new-account"
	body := map[string]any{"identifiers": []map[string]string{{"type": "dns", "value": "web.example"}}}
	used := good.Sign(path, body, nil)
	if status, kind, _ := good.Post(path, used); status != http.StatusCreated {
		t.Fatalf("a good request: %d %s", status, kind)
	}
	parts := func(text string) (m map[string]any) {
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	edit := func(change func(m map[string]any)) string {
		m := parts(good.Sign(path, body, nil))
		change(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	compact := func() string {
		m := parts(good.Sign(path, body, nil))
		return m["protected"].(string) + "." + m["payload"].(string) + "." + m["signature"].(string)
	}
	stranger := acmetest.NewRaw(t, w.CA)
	before := acmetest.CountRows(t, w.Dir, acmeTables...)
	for _, tc := range []struct {
		name, path, body, kind string
		status                 int
		header                 []string
	}{
		{name: "used nonce", body: used, kind: "badNonce", status: 400},
		{name: "invented nonce", body: good.Sign(path, body, map[string]any{"nonce": "AAAA"}), kind: "badNonce", status: 400},
		{name: "another key", body: other.Sign(path, body, nil), kind: "malformed", status: 400},
		{name: "altered payload", body: edit(func(m map[string]any) { m["payload"] = base64.RawURLEncoding.EncodeToString([]byte("{}")) }), kind: "malformed", status: 400},
		{name: "another url", body: good.Sign("/acme/acme/key-change", body, nil), kind: "unauthorized", status: 403},
		{name: "unknown account", body: good.Sign(path, body, map[string]any{"kid": good.KID + "x"}), kind: "accountDoesNotExist", status: 400},
		{name: "an address that only ends like the account's", body: good.Sign(path, body, map[string]any{"kid": "https://evil.example/" + good.KID[strings.LastIndex(good.KID, "/")+1:]}), kind: "accountDoesNotExist", status: 400},
		{name: "key where an account is wanted", body: stranger.Sign(path, body, nil), kind: "malformed", status: 400},
		{name: "compact form", body: compact(), kind: "malformed", status: 400},
		{name: "unprotected header", body: edit(func(m map[string]any) { m["header"] = map[string]any{"kid": good.KID} }), kind: "malformed", status: 400},
		{name: "no algorithm", body: edit(func(m map[string]any) {
			m["protected"] = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
		}), kind: "", status: 400},
		{name: "MAC", body: edit(func(m map[string]any) {
			m["protected"] = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"x"}`))
		}), kind: "badSignatureAlgorithm", status: 400},
		{name: "curve of no profile", path: accounts, body: big.Sign(accounts, body, nil), kind: "", status: 400},
		{name: "no JWS", body: "{}", kind: "malformed", status: 400},
		{name: "too large", body: `{"payload":"` + strings.Repeat("A", 65<<10) + `"}`, kind: "malformed", status: 413},
		{name: "content type", body: used, kind: "malformed", status: 415, header: []string{"Content-Type", "application/json"}},
		{name: "another authority's name", body: good.Sign(path, body, map[string]any{"url": "https://evil.example" + path}), kind: "malformed", status: 400, header: []string{"Host", "evil.example"}},
		{name: "another provisioner", path: "/acme/others/new-order", body: good.Sign("/acme/others/new-order", body, nil), kind: "malformed", status: 404},
	} {
		t.Run(tc.name, func(t *testing.T) {
			where := tc.path
			if where == "" {
				where = path
			}
			status, kind, resp := good.Post(where, tc.body, tc.header...)
			if status != tc.status || tc.kind != "" && kind != tc.kind {
				data, _ := io.ReadAll(resp.Body)
				t.Errorf("%d %s, want %d %s: %s", status, kind, tc.status, tc.kind, data)
			}
			if status != http.StatusNotFound && resp.Header.Get("Replay-Nonce") == "" {
				t.Error("the answer brings no nonce")
			}
			if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("content type %q", got)
			}
		})
	}
	if n := acmetest.CountRows(t, w.Dir, acmeTables...); n != before {
		t.Errorf("%d rows were stored", n-before)
	}
}

// FuzzACME: a body without a valid signature changes no row, and none makes the server panic.
func FuzzACME(f *testing.F) {
	w := acmetest.Start(f, catest.Options{})
	r := acmetest.NewRaw(f, w.CA)
	r.Register()
	paths := []string{"/acme/acme/new-account", "/acme/acme/new-order", "/acme/acme/revoke-cert", "/acme/acme/order/x/finalize", "/acme/acme/key-change", "/acme/acme/challenge/x/y"}
	broken := func(text string) string { return strings.Replace(text, `"signature":"`, `"signature":"AAAA`, 1) }
	for i, path := range paths {
		f.Add(i, broken(r.Sign(path, map[string]any{"identifiers": []any{}}, nil)))
		f.Add(i, broken(acmetest.NewRaw(f, w.CA).Sign(path, map[string]any{"contact": []string{"x"}}, nil)))
	}
	f.Add(0, `{"protected":"e30","payload":"","signature":""}`)
	f.Add(0, `{"signatures":[{"protected":"e30","signature":"AA"},{}],"payload":""}`)
	f.Add(1, "e30.e30.AA")
	u, err := url.Parse(w.URL)
	if err != nil {
		f.Fatal(err)
	}
	count, handler := acmetest.RowCounter(f, w.Dir, acmeTables...), w.Authority.Handler()
	before, err := count()
	if err != nil {
		f.Fatal(err)
	}
	var sender atomic.Uint32
	f.Fuzz(func(t *testing.T, n int, body string) {
		req := httptest.NewRequest(http.MethodPost, w.URL+paths[max(n, 0)%len(paths)], strings.NewReader(body))
		req.Host = u.Host
		from := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, sender.Add(1)))) // one that never failed has to wait for nothing
		req.RemoteAddr = netip.AddrPortFrom(from, 1).String()
		req.Header.Set("Content-Type", "application/jose+json")
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, req)
		if rec.Code < 400 || rec.Code >= 500 || rec.Code == http.StatusTooManyRequests {
			t.Errorf("%d for %q", rec.Code, body)
		}
		if n, err := count(); err != nil || n != before {
			t.Errorf("%d rows for %q, %v", n-before, body, err)
		}
	})
}
