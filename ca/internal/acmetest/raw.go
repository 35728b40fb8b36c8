package acmetest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// problemPrefix is that of the types of problems (RFC 8555 §6.7).
const problemPrefix = "urn:ietf:params:acme:error:"

// clientTimeout is long: SQLite alone waits for a lock for ten seconds, one caller after
// the other.
const clientTimeout = 2 * time.Minute

// httpClient trusts the roots of the authority.
func httpClient(t testing.TB, c *catest.CA) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: certs.Pool(c.Roots()...)}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: clientTimeout}
}

// Raw signs requests by hand: every part of one can be wrong.
type Raw struct {
	// T fails when a request cannot be sent at all. A subtest sets its own.
	T    testing.TB
	URL  string // of the authority, without a path
	HTTP *http.Client
	Key  crypto.Signer
	KID  string // address of the account; "" puts the public key into each request instead
}

// NewRaw returns a client with a key on P-256 and without an account.
func NewRaw(t testing.TB, c *catest.CA) *Raw {
	t.Helper()
	return &Raw{T: t, URL: c.URL, HTTP: httpClient(t, c), Key: testpki.Key(t)}
}

// As returns a client for the same authority, on the same connections, with another key and the address of another account.
func (r *Raw) As(key crypto.Signer, kid string) *Raw {
	return &Raw{T: r.T, URL: r.URL, HTTP: r.HTTP, Key: key, KID: kid}
}

// Nonce asks for a nonce, which needs no account (RFC 8555 §7.2).
func (r *Raw) Nonce() string {
	r.T.Helper()
	req, err := http.NewRequestWithContext(r.T.Context(), http.MethodHead, r.URL+"/acme/acme/new-nonce", nil)
	if err != nil {
		r.T.Fatal(err)
	}
	resp, err := r.HTTP.Do(req)
	if err != nil {
		r.T.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.Header.Get("Replay-Nonce")
}

// Sign makes the body of a request. A payload that is a string goes in as it is, any other
// as JSON; change edits the protected header, and nil takes a member of it away.
func (r *Raw) Sign(path string, payload any, change map[string]any) string {
	r.T.Helper()
	// An empty text is a POST-as-GET (RFC 8555 §6.3), which JSON has no value for.
	data, isText := payload.(string)
	if !isText {
		b, err := json.Marshal(payload)
		if err != nil {
			r.T.Fatal(err)
		}
		data = string(b)
	}
	head := map[jose.HeaderKey]any{"nonce": r.Nonce(), "url": r.URL + path}
	opts := &jose.SignerOptions{EmbedJWK: r.KID == ""}
	if r.KID != "" {
		head["kid"] = r.KID
	}
	for k, v := range change {
		head[jose.HeaderKey(k)] = v
	}
	for k, v := range head {
		if v != nil {
			opts.WithHeader(k, v)
		}
	}
	// P-521 is no key of this authority, so a test can send one and see it refused.
	alg := jose.ES256
	if k, ok := r.Key.(*ecdsa.PrivateKey); ok && k.Curve == elliptic.P521() {
		alg = jose.ES512
	} else if _, ok := r.Key.(ed25519.PrivateKey); ok {
		alg = jose.EdDSA
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: r.Key}, opts)
	if err != nil {
		r.T.Fatal(err)
	}
	jws, err := signer.Sign([]byte(data))
	if err != nil {
		r.T.Fatal(err)
	}
	return jws.FullSerialize()
}

// Post sends a body and returns status, type of problem without its prefix, and the answer.
// header is names and values by turns; Host replaces the host of the request.
func (r *Raw) Post(path, body string, header ...string) (int, string, *http.Response) {
	r.T.Helper()
	req, err := http.NewRequestWithContext(r.T.Context(), http.MethodPost, r.URL+path, strings.NewReader(body))
	if err != nil {
		r.T.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/jose+json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if h := req.Header.Get("Host"); h != "" {
		req.Host = h
	}
	resp, err := r.HTTP.Do(req)
	if err != nil {
		r.T.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // it is read to its end
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.T.Fatal(err)
	}
	// The caller may read the body, and has nothing to close.
	read := &http.Response{StatusCode: resp.StatusCode, Status: resp.Status, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(data))}
	// An answer that is no problem has no type, and may be no JSON at all.
	var p struct{ Type string }
	_ = json.Unmarshal(data, &p)
	return resp.StatusCode, strings.TrimPrefix(p.Type, problemPrefix), read
}

// Register gives the client an account (RFC 8555 §7.3).
func (r *Raw) Register() {
	r.T.Helper()
	const path = "/acme/acme/new-account"
	status, kind, resp := r.Post(path, r.Sign(path, map[string]any{"termsOfServiceAgreed": true}, nil))
	if status != http.StatusCreated {
		r.T.Fatalf("registering: %d %s", status, kind)
	}
	_ = resp.Body.Close()
	r.KID = resp.Header.Get("Location")
}

// Problem is what a client gets instead of an answer (RFC 7807, RFC 8555 §6.7).
type Problem struct {
	Type, Detail string
	Status       int
	Algorithms   []string
	Subproblems  []struct {
		Type, Detail string
		Identifier   struct{ Type, Value string }
	}
}

// PostProblem posts and reads the problem that comes back; kind is its type without the prefix.
func (r *Raw) PostProblem(path, body string, header ...string) (status int, kind string, p Problem, h http.Header) {
	r.T.Helper()
	status, kind, resp := r.Post(path, body, header...)
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.T.Fatal(err)
	}
	if err := json.Unmarshal(data, &p); err != nil && status >= 400 {
		r.T.Fatalf("%d %s: %v", status, data, err)
	}
	return status, kind, p, resp.Header
}

// NewOrder makes an order and returns the paths of the order, of its first authorization, and
// of its challenges by kind. challenges["token"] is their token.
func (r *Raw) NewOrder(names ...string) (order, authz string, challenges map[string]string) {
	r.T.Helper()
	const path = "/acme/acme/new-order"
	status, _, resp := r.Post(path, r.Sign(path, OrderOf(names...), nil))
	defer func() { _ = resp.Body.Close() }()
	if status != http.StatusCreated {
		data, _ := io.ReadAll(resp.Body)
		r.T.Fatalf("%d %s", status, data)
	}
	var o struct{ Authorizations []string }
	if err := json.NewDecoder(resp.Body).Decode(&o); err != nil {
		r.T.Fatal(err)
	}
	order, authz = strings.TrimPrefix(resp.Header.Get("Location"), r.URL), strings.TrimPrefix(o.Authorizations[0], r.URL)
	_, _, shown := r.Post(authz, r.Sign(authz, "", nil))
	defer func() { _ = shown.Body.Close() }()
	var az struct {
		Challenges []struct{ Type, URL, Token string }
	}
	if err := json.NewDecoder(shown.Body).Decode(&az); err != nil {
		r.T.Fatal(err)
	}
	challenges = make(map[string]string)
	for _, ch := range az.Challenges {
		if b, err := base64.RawURLEncoding.Strict().DecodeString(ch.Token); err != nil || len(b) < 16 { // RFC 8555 §11.3
			r.T.Errorf("token %q: %v", ch.Token, err)
		}
		challenges[ch.Type], challenges["token"] = strings.TrimPrefix(ch.URL, r.URL), ch.Token
	}
	return order, authz, challenges
}

// OrderOf is the payload of an order for DNS names (RFC 8555 §7.4).
func OrderOf(names ...string) map[string]any {
	ids := make([]map[string]string, 0, len(names))
	for _, n := range names {
		ids = append(ids, map[string]string{"type": "dns", "value": n})
	}
	return map[string]any{"identifiers": ids}
}
