package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
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

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/catest"
)

// acmeTables are all that ACME writes to, but for what makes nonces.
var acmeTables = []string{"acme_nonces", "acme_accounts", "acme_orders", "acme_authorizations", "acme_challenges", "events", "used_tokens"}

// rawACME signs requests by hand: every part of one can be wrong.
type rawACME struct {
	*client
	key crypto.Signer
	kid string
}

// nonce asks for one as everybody can.
func (r *rawACME) nonce() string {
	r.t.Helper()
	resp, err := r.http.Head(r.url + "/acme/acme/new-nonce")
	if err != nil {
		r.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.Header.Get("Replay-Nonce")
}

// sign makes the body of a request; change edits the protected header.
func (r *rawACME) sign(path string, payload any, change map[string]any) string {
	r.t.Helper()
	data, isText := payload.(string)
	if !isText {
		b, err := json.Marshal(payload)
		if err != nil {
			r.t.Fatal(err)
		}
		data = string(b)
	}
	head := map[jose.HeaderKey]any{"nonce": r.nonce(), "url": r.url + path}
	opts := &jose.SignerOptions{EmbedJWK: r.kid == ""}
	if r.kid != "" {
		head["kid"] = r.kid
	}
	for k, v := range change {
		head[jose.HeaderKey(k)] = v
	}
	for k, v := range head {
		if v != nil { // a change to nil takes it away
			opts.WithHeader(k, v)
		}
	}
	alg := jose.ES256
	if k, ok := r.key.(*ecdsa.PrivateKey); ok && k.Curve == elliptic.P521() {
		alg = jose.ES512
	} else if _, ok := r.key.(ed25519.PrivateKey); ok {
		alg = jose.EdDSA
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: r.key}, opts)
	if err != nil {
		r.t.Fatal(err)
	}
	jws, err := signer.Sign([]byte(data))
	if err != nil {
		r.t.Fatal(err)
	}
	return jws.FullSerialize()
}

// post sends a body and returns status, type of problem without its prefix, and the answer.
func (r *rawACME) post(path, body string, header ...string) (int, string, *http.Response) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/jose+json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if h := req.Header.Get("Host"); h != "" {
		req.Host = h
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(data))
	var p struct{ Type string }
	_ = json.Unmarshal(data, &p)
	return resp.StatusCode, strings.TrimPrefix(p.Type, "urn:ietf:params:acme:error:"), resp
}

func rawClient(t testing.TB, c *catest.CA) *rawACME {
	return &rawACME{client: newClient(t, c, nil), key: newKey(t)}
}

// register gives a client an account.
func (r *rawACME) register() {
	r.t.Helper()
	const path = "/acme/acme/new-account"
	status, kind, resp := r.post(path, r.sign(path, map[string]any{"termsOfServiceAgreed": true}, nil))
	if status != http.StatusCreated {
		r.t.Fatalf("registering: %d %s", status, kind)
	}
	r.kid = resp.Header.Get("Location")
}

// Nobody gets past the gate whose request is not right in all its parts; nothing
// is stored for them, and each is told the nonce of the next try.
func TestACMEGate(t *testing.T) {
	w := startACME(t)
	good := rawClient(t, w.CA)
	good.register()
	other, big := rawClient(t, w.CA), rawClient(t, w.CA)
	other.kid = good.kid // not its account
	var err error
	if big.key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	const path, accounts = "/acme/acme/new-order", "/acme/acme/new-account"
	body := map[string]any{"identifiers": []map[string]string{{"type": "dns", "value": "web.example"}}}
	used := good.sign(path, body, nil)
	if status, kind, _ := good.post(path, used); status != http.StatusCreated {
		t.Fatalf("a good request: %d %s", status, kind)
	}
	parts := func(text string) (m map[string]any) {
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	edit := func(change func(m map[string]any)) string {
		m := parts(good.sign(path, body, nil))
		change(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	compact := func() string {
		m := parts(good.sign(path, body, nil))
		return m["protected"].(string) + "." + m["payload"].(string) + "." + m["signature"].(string)
	}
	stranger := rawClient(t, w.CA)
	before := countRows(t, w.Dir, acmeTables...)
	for _, tc := range []struct {
		name, path, body, kind string
		status                 int
		header                 []string
	}{
		{name: "used nonce", body: used, kind: "badNonce", status: 400},
		{name: "invented nonce", body: good.sign(path, body, map[string]any{"nonce": "AAAA"}), kind: "badNonce", status: 400},
		{name: "another key", body: other.sign(path, body, nil), kind: "malformed", status: 400},
		{name: "altered payload", body: edit(func(m map[string]any) { m["payload"] = base64.RawURLEncoding.EncodeToString([]byte("{}")) }), kind: "malformed", status: 400},
		{name: "another url", body: good.sign("/acme/acme/key-change", body, nil), kind: "unauthorized", status: 403},
		{name: "unknown account", body: good.sign(path, body, map[string]any{"kid": good.kid + "x"}), kind: "accountDoesNotExist", status: 400},
		{name: "an address that only ends like the account's", body: good.sign(path, body, map[string]any{"kid": "https://evil.example/" + good.kid[strings.LastIndex(good.kid, "/")+1:]}), kind: "accountDoesNotExist", status: 400},
		{name: "key where an account is wanted", body: stranger.sign(path, body, nil), kind: "malformed", status: 400},
		{name: "compact form", body: compact(), kind: "malformed", status: 400},
		{name: "unprotected header", body: edit(func(m map[string]any) { m["header"] = map[string]any{"kid": good.kid} }), kind: "malformed", status: 400},
		{name: "no algorithm", body: edit(func(m map[string]any) {
			m["protected"] = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
		}), kind: "", status: 400},
		{name: "MAC", body: edit(func(m map[string]any) {
			m["protected"] = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"x"}`))
		}), kind: "badSignatureAlgorithm", status: 400},
		{name: "curve of no profile", path: accounts, body: big.sign(accounts, body, nil), kind: "", status: 400},
		{name: "no JWS", body: "{}", kind: "malformed", status: 400},
		{name: "too large", body: `{"payload":"` + strings.Repeat("A", 65<<10) + `"}`, kind: "malformed", status: 413},
		{name: "content type", body: used, kind: "malformed", status: 415, header: []string{"Content-Type", "application/json"}},
		{name: "another authority's name", body: good.sign(path, body, map[string]any{"url": "https://evil.example" + path}), kind: "malformed", status: 400, header: []string{"Host", "evil.example"}},
		{name: "another provisioner", path: "/acme/others/new-order", body: good.sign("/acme/others/new-order", body, nil), kind: "malformed", status: 404},
	} {
		t.Run(tc.name, func(t *testing.T) {
			where := tc.path
			if where == "" {
				where = path
			}
			status, kind, resp := good.post(where, tc.body, tc.header...)
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
	if n := countRows(t, w.Dir, acmeTables...); n != before {
		t.Errorf("%d rows were stored", n-before)
	}
}

// FuzzACME: no body whatever that no key signed changes a row, and none panics.
func FuzzACME(f *testing.F) {
	w := startACME(f)
	r := rawClient(f, w.CA)
	r.register()
	paths := []string{"/acme/acme/new-account", "/acme/acme/new-order", "/acme/acme/revoke-cert", "/acme/acme/order/x/finalize", "/acme/acme/key-change", "/acme/acme/challenge/x/y"}
	broken := func(text string) string { return strings.Replace(text, `"signature":"`, `"signature":"AAAA`, 1) }
	for i, path := range paths {
		f.Add(i, broken(r.sign(path, map[string]any{"identifiers": []any{}}, nil)))
		f.Add(i, broken(rawClient(f, w.CA).sign(path, map[string]any{"contact": []string{"x"}}, nil)))
	}
	f.Add(0, `{"protected":"e30","payload":"","signature":""}`)
	f.Add(0, `{"signatures":[{"protected":"e30","signature":"AA"},{}],"payload":""}`)
	f.Add(1, "e30.e30.AA")
	u, err := url.Parse(w.URL)
	if err != nil {
		f.Fatal(err)
	}
	count, handler := counter(f, w.Dir, acmeTables...), w.Authority.Handler()
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
