package ca_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// expired returns a certificate of a service that ended so long ago.
func expired(t testing.TB, c *catest.CA, service string, ago time.Duration, names ...string) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	block, _ := pem.Decode([]byte(csr(t, key, service, names...)))
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := c.Authority.IssueFixture(t.Context(), service, req, time.Now().Add(-24*time.Hour-ago))
	if err != nil {
		t.Fatal(err)
	}
	out := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		out.Certificate = append(out.Certificate, cert.Raw)
	}
	return out
}

// claimsFor returns the claims of a valid token for a path, after change has edited
// them.
func claimsFor(t testing.TB, c *catest.CA, cert *tls.Certificate, path string, change map[string]any) map[string]any {
	t.Helper()
	u, err := url.Parse(c.URL)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	claims := map[string]any{
		"iss": "step-ca-client/1.0", "sub": cert.Leaf.Subject.CommonName, "aud": "https://" + u.Host + path,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "jti": cert.Leaf.SerialNumber.String() + now.String(),
	}
	maps.Copy(claims, change)
	return claims
}

// sign makes a token as step does. It is made by hand, so that a mistake of a shared
// helper cannot hide.
func signProof(t testing.TB, key crypto.Signer, chain [][]byte, claims map[string]any) string {
	t.Helper()
	var x5c []string
	for _, der := range chain {
		x5c = append(x5c, base64.StdEncoding.EncodeToString(der))
	}
	opts := new(jose.SignerOptions).WithType("JWT").WithHeader("x5cInsecure", x5c)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jose.Signed(signer).Claims(claims).CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func proofFor(t testing.TB, c *catest.CA, cert *tls.Certificate, path string, change map[string]any) string {
	t.Helper()
	return signProof(t, cert.PrivateKey.(crypto.Signer), cert.Certificate, claimsFor(t, c, cert, path, change))
}

func bound(t testing.TB, request string) map[string]any {
	t.Helper()
	block, _ := pem.Decode([]byte(request))
	sum := sha256.Sum256(block.Bytes)
	return map[string]any{"cnf": map[string]string{"x5rt#S256": base64.RawURLEncoding.EncodeToString(sum[:])}}
}

// An expired certificate is renewed for the same key and for another one, once for
// each token, and the record says how.
func TestRenewAfterExpiry(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cl := newClient(t, c, nil)
	old := expired(t, c, "storage", time.Minute, "storage")
	token := proofFor(t, c, old, "/renew", nil)
	status, body := cl.do("POST", "/renew", nil, "Authorization", "Bearer "+token)
	if status != http.StatusCreated {
		t.Fatalf("renew: %d %s", status, body)
	}
	renewed := pair(t, body, old.PrivateKey.(crypto.Signer))
	if status, body := cl.do("POST", "/1.0/renew", nil, "Authorization", "Bearer "+token); status != http.StatusUnauthorized || !strings.Contains(message(t, body), "already used") {
		t.Errorf("the same token again: %d %s", status, body)
	}
	for name, variant := range map[string]string{"signature": otherSignature(t, token), "base64": otherSpelling(token)} {
		if status, body := cl.do("POST", "/renew", nil, "Authorization", "Bearer "+variant); status != http.StatusUnauthorized || variant == token {
			t.Errorf("the same token with another %s: %d %s", name, status, body)
		}
	}
	key := newKey(t)
	request := csr(t, key, "storage")
	token = proofFor(t, c, old, "/1.0/rekey", bound(t, request))
	status, body = cl.do("POST", "/1.0/rekey", stepapi.RekeyRequest{CSR: request}, "Authorization", "Bearer "+token)
	if status != http.StatusCreated {
		t.Fatalf("rekey: %d %s", status, body)
	}
	rekeyed := pair(t, body, key)
	for _, tc := range []struct {
		cert *tls.Certificate
		kind string
	}{{renewed, kinds.Renewed}, {rekeyed, kinds.Rekeyed}} {
		e, err := openRecord(t, c).Show(t.Context(), tc.cert.Leaf.SerialNumber.String())
		want := "expired certificate storage/" + old.Leaf.SerialNumber.String()
		if err != nil || e.Caller != want || e.Kind != tc.kind || e.Lineage != old.Leaf.SerialNumber.String() {
			t.Errorf("recorded %s by %q in lineage %s, %v; want by %q", e.Kind, e.Caller, e.Lineage, err, want)
		}
	}
	// A valid certificate may use a token as well, as "step ca renew --mtls=false" does.
	status, body = cl.do("POST", "/renew", nil, "Authorization", "Bearer "+proofFor(t, c, renewed, "/renew", nil))
	if status != http.StatusCreated {
		t.Errorf("a valid certificate: %d %s", status, body)
	}
	// The certificate of the connection comes first, and a token of another one is ignored.
	other := enrol(t, c, "ingester", "ingester")
	status, body = newClient(t, c, other).do("POST", "/renew", nil, "Authorization", "Bearer "+proofFor(t, c, old, "/renew", nil))
	if status != http.StatusCreated || pair(t, body, other.PrivateKey.(crypto.Signer)).Leaf.Subject.CommonName != "ingester" {
		t.Errorf("with a certificate: %d %s", status, body)
	}
	c.Check(t)
}

// otherSignature returns the second valid signature that follows from an ECDSA
// signature: (r, n-s).
func otherSignature(t testing.TB, token string) string {
	t.Helper()
	at := strings.LastIndex(token, ".") + 1
	b, err := base64.RawURLEncoding.DecodeString(token[at:])
	if err != nil || len(b) != 64 {
		t.Fatal(err)
	}
	s := new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(b[32:]))
	s.FillBytes(b[32:])
	return token[:at] + base64.RawURLEncoding.EncodeToString(b)
}

// otherSpelling sets the unused bits at the end of a part in base64, if it has some.
func otherSpelling(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	parts := strings.Split(token, ".")
	for i, p := range parts {
		if len(p)%4 != 0 {
			last := strings.IndexByte(alphabet, p[len(p)-1])
			parts[i] = p[:len(p)-1] + alphabet[last^1:last^1+1]
			break
		}
	}
	return strings.Join(parts, ".")
}

// A spent token is refused after a restart too, and by another process on the record.
func TestProofIsSpentDurably(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	old := expired(t, c, "storage", time.Minute, "storage")
	token := proofFor(t, c, old, "/renew", nil)
	if status, body := newClient(t, c, nil).do("POST", "/renew", nil, "Authorization", "Bearer "+token); status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	again, err := ca.Open(t.Context(), ca.Options{Dir: c.Dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if err := again.RenewByProof(t.Context(), token); err == nil || !strings.Contains(err.Error(), "already used") {
		t.Errorf("after a restart: %v", err)
	}
}

func TestRenewAfterExpiryRefused(t *testing.T) {
	t.Parallel()
	none, little := time.Duration(0), 2*time.Minute
	never, brief := policy.Profile{Names: []string{"never"}}, policy.Profile{Names: []string{"brief"}}
	never.Lifetime.Grace, brief.Lifetime.Grace = &none, &little
	all := profiles()
	all["never"], all["brief"] = never, brief
	c := catest.Start(t, catest.Options{Profiles: all, Edit: limitsOf("{per_address: {per_second: 0}}")})
	cl := newClient(t, c, nil)
	good := expired(t, c, "storage", time.Minute, "storage")
	revoked := expired(t, c, "storage", time.Minute, "storage")
	c.Revoke(t, revoked.Leaf.SerialNumber.String())
	foreign := expired(t, catest.Start(t, catest.Options{Profiles: profiles()}), "storage", time.Minute, "storage")
	request := csr(t, newKey(t), "storage")
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	for _, tc := range []struct {
		name, path, token, want string
	}{
		{"grace is off", "/renew", proofFor(t, c, expired(t, c, "never", time.Minute, "never"), "/renew", nil), "are not renewed"},
		{"beyond the grace", "/renew", proofFor(t, c, expired(t, c, "brief", 5*time.Minute, "brief"), "/renew", nil), "longer ago than the 2m0s"},
		{"revoked", "/renew", proofFor(t, c, revoked, "/renew", nil), "was revoked"},
		{"of another authority", "/renew", proofFor(t, c, foreign, "/renew", nil), "not in the record"},
		{"another key", "/renew", signProof(t, newKey(t), good.Certificate, claimsFor(t, c, good, "/renew", nil)), "not signed by the key"},
		{"no certificate", "/renew", signProof(t, newKey(t), nil, claimsFor(t, c, good, "/renew", nil)), "brings no certificate"},
		{"no certificate at all", "/renew", signProof(t, newKey(t), [][]byte{[]byte("x")}, claimsFor(t, c, good, "/renew", nil)), "does not parse"},
		{"for the other path", "/renew", proofFor(t, c, good, "/rekey", nil), "another purpose"},
		{"another audience", "/renew", proofFor(t, c, good, "/renew", map[string]any{"aud": "https://elsewhere/renew"}), "another purpose"},
		{"cleartext audience", "/renew", proofFor(t, c, good, "/renew", map[string]any{"aud": strings.Replace(c.URL, "https", "http", 1) + "/renew"}), "another purpose"},
		{"another subject", "/renew", proofFor(t, c, good, "/renew", map[string]any{"sub": "ingester"}), "its subject"},
		{"another issuer", "/renew", proofFor(t, c, good, "/renew", map[string]any{"iss": "me"}), "its issuer"},
		{"over", "/renew", proofFor(t, c, good, "/renew", map[string]any{"exp": ago(2 * time.Minute)}), "it has expired; the time here is"},
		{"not yet", "/renew", proofFor(t, c, good, "/renew", map[string]any{"nbf": ago(-2 * time.Minute)}), "not valid yet"},
		{"for an hour", "/renew", proofFor(t, c, good, "/renew", map[string]any{"exp": ago(-time.Hour)}), "lives longer"},
		{"for ever", "/renew", proofFor(t, c, good, "/renew", map[string]any{"exp": nil}), "no expiry"},
		{"white space", "/renew", strings.Replace(proofFor(t, c, good, "/renew", nil), ".", ". ", 1), "not a signed JWT"},
		{"unbound", "/rekey", proofFor(t, c, good, "/rekey", nil), "not bound"},
		{"bound to another request", "/rekey", proofFor(t, c, good, "/rekey", bound(t, csr(t, newKey(t), "storage"))), "not bound"},
		{"rubbish", "/renew", "a.b.c", "not a signed JWT"},
		{"JSON", "/renew", "{..}", "not a signed JWT"},
		{"long", "/renew", strings.Repeat("a", 25<<10), "longer than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var in any
			if tc.path == "/rekey" {
				in = stepapi.RekeyRequest{CSR: request}
			}
			status, body := cl.do("POST", tc.path, in, "Authorization", "Bearer "+tc.token)
			if status != http.StatusUnauthorized || !strings.Contains(message(t, body), tc.want) {
				t.Errorf("%d %s, want 401 and …%s…", status, body, tc.want)
			}
		})
	}
	if status, body := cl.do("POST", "/renew", nil, "Authorization", "Basic eA=="); status != http.StatusUnauthorized {
		t.Errorf("another scheme: %d %s", status, body)
	}
	events, err := openRecord(t, c).Events(t.Context(), "refused", 0, 10)
	if err != nil || len(events) != 3 || !strings.HasPrefix(events[0].Caller, "expired certificate ") || events[0].Rule != "grace after expiry" {
		t.Errorf("recorded are %+v, %v; want the three whose key was proven", events, err)
	}
	c.Check(t)
}

// After a root was removed, its expired certificates are not renewed any more.
func TestRemovedRootEndsGrace(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	old := expired(t, c, "storage", time.Minute, "storage")
	fingerprint := c.AddRoot(t)
	c.ActivateRoot(t, fingerprint)
	cl := newClient(t, c, nil)
	if status, body := cl.do("POST", "/renew", nil, "Authorization", "Bearer "+proofFor(t, c, old, "/renew", nil)); status != http.StatusCreated {
		t.Errorf("while the root is trusted: %d %s", status, body)
	}
	c.ChangeTrust(t, stepapi.TrustChange{Step: stepapi.StepRemove, Certificate: c.RootFingerprint, Accept: []string{"storage"}})
	status, body := cl.do("POST", "/renew", nil, "Authorization", "Bearer "+proofFor(t, c, old, "/renew", nil))
	if status != http.StatusUnauthorized || !strings.Contains(message(t, body), "root of today") {
		t.Errorf("after it was removed: %d %s", status, body)
	}
}

func TestGraceConfig(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	for grace, want := range map[string]string{"0s": "", "72h": "", "73h": "not between", "3d": "", "-1s": "lifetime.grace: want a length of time", "soon": "lifetime.grace: want a length of time"} {
		c.Rewrite(t, func(b []byte) []byte {
			return []byte(strings.Replace(string(b), "  # grace: 72h", "  grace: "+grace, 1))
		})
		err := c.Authority.Reload(t.Context())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("grace %s: %v", grace, err)
		}
		c.Rewrite(t, func(b []byte) []byte {
			return []byte(strings.Replace(string(b), "  grace: "+grace, "  # grace: 72h", 1))
		})
	}
}
