package acmesrv_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.step.sm/crypto/jose"
	"golang.org/x/crypto/acme"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// Most of these tests use the client of golang.org/x/crypto/acme.
func eab(t testing.TB, c *catest.CA, profiles ...string) (record.EABKey, []byte) {
	t.Helper()
	k, key, err := openRecord(t, c).NewEABKey(t.Context(), ca.EABOptions{Profiles: profiles})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := base64.RawURLEncoding.DecodeString(key.Expose())
	if err != nil {
		t.Fatal(err)
	}
	return k, secret
}

func register(t testing.TB, cl *acme.Client, k record.EABKey, secret []byte) error {
	t.Helper()
	_, err := cl.Register(t.Context(), &acme.Account{ExternalAccountBinding: &acme.ExternalAccountBinding{KID: k.ID, Key: secret}}, acme.AcceptTOS)
	return err
}

// A key of the operator binds one account to its profiles (RFC 8555 §7.3.4).
func TestACMEBinding(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { acmeBinding(t, "") })
	t.Run("postgres", func(t *testing.T) { acmeBinding(t, postgres.Database(t)) })
}

func acmeBinding(t *testing.T, database string) {
	w := acmetest.Start(t, catest.Options{Database: database}, ", require_eab: true")
	rec := openRecord(t, w.CA)
	dir, err := w.Client(t).Discover(t.Context())
	if err != nil || !dir.ExternalAccountRequired {
		t.Errorf("directory: %+v, %v", dir, err)
	}
	_, err = w.Client(t).Register(t.Context(), &acme.Account{}, acme.AcceptTOS)
	acmetest.RefusedWith(t, err, "externalAccountRequired", "artstore-pki acme eab create")

	k, secret := eab(t, w.CA, "web")
	acmetest.RefusedWith(t, register(t, w.Client(t), record.EABKey{ID: "nobody"}, secret), "unauthorized", "unknown, used, revoked or expired")
	acmetest.RefusedWith(t, register(t, w.Client(t), k, []byte("another secret")), "unauthorized", "MAC does not verify")
	cl := w.Client(t)
	if err := register(t, cl, k, secret); err != nil {
		t.Fatal(err)
	}
	acmetest.RefusedWith(t, register(t, w.Client(t), k, secret), "unauthorized", "unknown, used, revoked or expired")
	again := w.Client(t) // the answer was lost
	again.Key = cl.Key
	if err := register(t, again, k, secret); !errors.Is(err, acme.ErrAccountAlreadyExists) {
		t.Errorf("the same account again: %v", err)
	}
	w.Obtain(t, cl, "http-01", "web.example")
	_, err = acmetest.Order(t, cl, "other.example")
	acmetest.RefusedWith(t, err, "rejectedIdentifier", "no profile with acme: true has all of")

	third, secret := eab(t, w.CA, "third")
	cl3 := w.Client(t)
	if err := register(t, cl3, third, secret); err != nil {
		t.Fatal(err)
	}
	w.Obtain(t, cl3, "dns-01", "shared.example") // of two profiles, and this account may use one of them

	o := w.Proven(t, cl, "http-01", "web.example")
	if err := rec.RevokeEABKey(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	_, err = acmetest.Order(t, cl, "web.example")
	acmetest.RefusedWith(t, err, "unauthorized", "external account key of this account was revoked")
	_, _, err = cl.CreateOrderCert(t.Context(), o.FinalizeURL, acmetest.Request(t, testpki.Key(t), "", "web.example"), false)
	acmetest.RefusedWith(t, err, "unauthorized", "external account key of this account was revoked")
	w.Check(t)
}

// An account of before require_eab orders nothing until it is bound.
func TestACMEBindingLater(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
	w.Rewrite(t, func(b []byte) []byte {
		return []byte(strings.Replace(string(b), "networks: [127.0.0.0/8]", "networks: [127.0.0.0/8], require_eab: true", 1))
	})
	if err := w.Authority.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := acmetest.Order(t, cl, "web.example")
	acmetest.RefusedWith(t, err, "externalAccountRequired", "register again with a key")
	k, secret := eab(t, w.CA, "web")
	if err := register(t, cl, k, secret); !errors.Is(err, acme.ErrAccountAlreadyExists) {
		t.Fatal(err)
	}
	w.Obtain(t, cl, "http-01", "web.example")
}

// Bindings that are signed right and are wrong otherwise.
func TestACMEBindingForms(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	const path = "/acme/acme/new-account"
	k, secret := eab(t, w.CA, "web")
	r := acmetest.NewRaw(t, w.CA)
	other := testpki.Key(t)
	mac := func(alg jose.SignatureAlgorithm, payload any, head map[string]any) json.RawMessage {
		opts := new(jose.SignerOptions)
		for name, v := range head {
			opts.WithHeader(jose.HeaderKey(name), v)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: secret}, opts)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign(data)
		if err != nil {
			t.Fatal(err)
		}
		return json.RawMessage(jws.FullSerialize())
	}
	own := jose.JSONWebKey{Key: r.Key.Public()}
	good := map[string]any{"kid": k.ID, "url": w.URL + path}
	for _, tc := range []struct {
		name, kind, detail string
		eab                any
	}{
		{"a text", "malformed", "not a JWS", "x"},
		{"another algorithm", "malformed", "none of HS256", json.RawMessage(r.Sign(path, own, nil))},
		{"no kid", "malformed", "want kid", mac("HS256", own, map[string]any{"url": w.URL + path})},
		{"a nonce", "malformed", "must not have a nonce", mac("HS256", own, with(good, "nonce", "x"))},
		{"another url", "malformed", "url is not that of the request", mac("HS256", own, with(good, "url", w.URL+"/"))},
		{"another key", "unauthorized", "not the key of the account", mac("HS512", jose.JSONWebKey{Key: other.Public()}, good)},
		{"no key", "unauthorized", "not the key of the account", mac("HS384", "x", good)},
	} {
		status, kind, p, _ := r.PostProblem(path, r.Sign(path, map[string]any{"externalAccountBinding": tc.eab}, nil))
		if status >= 500 || kind != tc.kind || !strings.Contains(p.Detail, tc.detail) {
			t.Errorf("%s: %d %s %q, want %s with %q", tc.name, status, kind, p.Detail, tc.kind, tc.detail)
		}
	}
	if status, kind, p, _ := r.PostProblem(path, r.Sign(path, map[string]any{"externalAccountBinding": mac("HS512", own, good)}, nil)); status != http.StatusCreated {
		t.Errorf("a good one: %d %s %q", status, kind, p.Detail)
	}
}

// The key of an account changes, and the old one is of no account then (RFC 8555 §7.3.5).
func TestACMEKeyChange(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl, other := w.Account(t), w.Account(t)
	ordered, err := acmetest.Order(t, cl, "web.example")
	if err != nil {
		t.Fatal(err)
	}
	kid, old := cl.KID, cl.Key
	next, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.AccountKeyRollover(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if cl.Key != crypto.Signer(next) {
		t.Fatal("the client kept its old key")
	}
	if acc, err := cl.GetReg(t.Context(), ""); err != nil || acc.URI != string(kid) {
		t.Errorf("%+v, %v", acc, err)
	}
	w.Prove(t, cl, ordered, "http-01") // what was under way goes on, with the new key's thumbprint
	before := &acme.Client{Key: old, KID: kid, DirectoryURL: cl.DirectoryURL, HTTPClient: cl.HTTPClient}
	_, err = before.AuthorizeOrder(t.Context(), acme.DomainIDs("web.example"))
	acmetest.RefusedWith(t, err, "malformed", "signature does not verify")
	err = other.AccountKeyRollover(t.Context(), next)
	if p, ok := errors.AsType[*acme.Error](err); !ok || p.StatusCode != http.StatusConflict || p.Header.Get("Location") != string(kid) {
		t.Errorf("to the key of another account: %v, %v", err, p)
	}
	w.Check(t)
}

// Inner JWSs that say something else than the outer one.
func TestACMEKeyChangeForms(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	const path = "/acme/acme/key-change"
	r, other := acmetest.NewRaw(t, w.CA), acmetest.NewRaw(t, w.CA)
	r.Register()
	other.Register()
	next := testpki.Key(t)
	inner := func(key crypto.Signer, payload any, change map[string]any) json.RawMessage {
		in := r.As(key, "")
		head := map[string]any{"nonce": nil}
		for k, v := range change {
			head[k] = v
		}
		return json.RawMessage(in.Sign(path, payload, head))
	}
	oldKey := jose.JSONWebKey{Key: r.Key.Public()}
	good := map[string]any{"account": r.KID, "oldKey": oldKey}
	for _, tc := range []struct {
		name, detail string
		inner        any
	}{
		{"no jwk", "must have jwk", func() any {
			in := r.As(next, r.KID)
			return json.RawMessage(in.Sign(path, good, map[string]any{"nonce": nil}))
		}()},
		{"a nonce", "must not have a nonce", inner(next, good, map[string]any{"nonce": "x"})},
		{"another url", "url of the inner JWS", inner(next, good, map[string]any{"url": "https://x"})},
		{"another account", "not that of the request", inner(next, with(good, "account", other.KID), nil)},
		{"another old key", "oldKey is not", inner(next, with(good, "oldKey", jose.JSONWebKey{Key: other.Key.Public()}), nil)},
		{"no payload", "not {account, oldKey}", inner(next, "[]", nil)},
		{"an altered signature", "does not verify", json.RawMessage(strings.Replace(string(inner(next, good, nil)), `"signature":"`, `"signature":"AAAA`, 1))},
	} {
		status, kind, p, _ := r.PostProblem(path, r.Sign(path, tc.inner, nil))
		if status >= 500 || kind != "malformed" || !strings.Contains(p.Detail, tc.detail) {
			t.Errorf("%s: %d %s %q, want %q", tc.name, status, kind, p.Detail, tc.detail)
		}
	}
	if status, _, p, _ := r.PostProblem(path, r.Sign(path, inner(next, good, nil), nil)); status != http.StatusOK {
		t.Errorf("a good one: %d %q", status, p.Detail)
	}
}

// An authorization that is given up ends its order (RFC 8555 §7.5.2, §7.1.6).
func TestACMEDeactivateAuthorization(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
	for _, proven := range []bool{false, true} {
		o, err := acmetest.Order(t, cl, "web.example")
		if err != nil {
			t.Fatal(err)
		}
		if proven {
			w.Prove(t, cl, o, "http-01")
		}
		if err := cl.RevokeAuthorization(t.Context(), o.AuthzURLs[0]); err != nil {
			t.Fatal(err)
		}
		if az, err := cl.GetAuthorization(t.Context(), o.AuthzURLs[0]); err != nil || az.Status != "deactivated" {
			t.Errorf("%+v, %v", az, err)
		}
		now, err := cl.GetOrder(t.Context(), o.URI)
		if err != nil || now.Status != acme.StatusInvalid {
			t.Errorf("%+v, %v", now, err)
		}
		_, _, err = cl.CreateOrderCert(t.Context(), o.FinalizeURL, acmetest.Request(t, testpki.Key(t), "", "web.example"), false)
		acmetest.RefusedWith(t, err, "orderNotReady", "an authorization was deactivated")
	}
	w.Check(t)
}

// The challenges of an authorization that was deactivated are not validated any more.
func TestACMEEndedChallenges(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	r := acmetest.NewRaw(t, w.CA)
	r.Register()
	_, authz, challenges := r.NewOrder("web.example")
	if status, _, _ := r.Post(authz, r.Sign(authz, map[string]string{"status": "deactivated"}, nil)); status != http.StatusOK {
		t.Fatal("deactivating")
	}
	path := challenges["http-01"]
	for range 3 {
		status, _, resp := r.Post(path, r.Sign(path, map[string]any{}, nil))
		data, err := io.ReadAll(resp.Body)
		if err != nil || status != http.StatusOK || !strings.Contains(string(data), `"status":"pending"`) {
			t.Errorf("%d %s, %v", status, data, err)
		}
	}
	if n := w.Visits(); n != 0 {
		t.Errorf("the authority asked %d times", n)
	}
}

// A deactivated account ends its orders, and its key registers no more (RFC 8555 §7.3.6).
func TestACMEDeactivateAccount(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
	if _, err := acmetest.Order(t, cl, "web.example"); err != nil {
		t.Fatal(err)
	}
	if err := cl.DeactivateReg(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := acmetest.Order(t, cl, "web.example")
	acmetest.RefusedWith(t, err, "unauthorized", "the account is deactivated")
	again := w.Client(t)
	again.Key = cl.Key
	_, err = again.Register(t.Context(), &acme.Account{}, acme.AcceptTOS)
	acmetest.RefusedWith(t, err, "unauthorized", "the account is deactivated")
}

// A certificate has exactly the dates of its order; an order without dates shows none.
func TestACMEDates(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
	begin := time.Now().Add(-10 * time.Minute).UTC().Truncate(time.Second)
	end := begin.Add(3 * time.Hour)
	for _, tc := range []struct {
		opts       []acme.OrderOption
		begin, end time.Time
	}{
		{nil, time.Time{}, time.Time{}},
		{[]acme.OrderOption{acme.WithOrderNotAfter(end)}, time.Time{}, end},
		{[]acme.OrderOption{acme.WithOrderNotBefore(begin)}, begin, time.Time{}},
		{[]acme.OrderOption{acme.WithOrderNotBefore(begin), acme.WithOrderNotAfter(end)}, begin, end},
	} {
		o, err := cl.AuthorizeOrder(t.Context(), acme.DomainIDs("web.example"), tc.opts...)
		if err != nil {
			t.Fatal(err)
		}
		if !o.NotBefore.Equal(tc.begin) || !o.NotAfter.Equal(tc.end) {
			t.Errorf("the order shows %s to %s, asked was %s to %s", o.NotBefore, o.NotAfter, tc.begin, tc.end)
		}
		w.Prove(t, cl, o, "http-01")
		ders, _, err := cl.CreateOrderCert(t.Context(), o.FinalizeURL, acmetest.Request(t, testpki.Key(t), "", "web.example"), false)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(ders[0])
		if err != nil {
			t.Fatal(err)
		}
		if !tc.begin.IsZero() && !leaf.NotBefore.Equal(tc.begin) || !tc.end.IsZero() && !leaf.NotAfter.Equal(tc.end) {
			t.Errorf("it has %s to %s, asked was %s to %s", leaf.NotBefore, leaf.NotAfter, tc.begin, tc.end)
		}
	}
	w.Check(t)
}

// The directory lists services as profiles; an order gets the one that it names
// (draft-ietf-acme-profiles).
func TestACMEProfiles(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	r := acmetest.NewRaw(t, w.CA)
	r.Register()
	resp, err := r.HTTP.Get(w.URL + "/acme/acme/directory")
	if err != nil {
		t.Fatal(err)
	}
	var dir struct {
		Meta struct{ Profiles map[string]string }
	}
	err = json.NewDecoder(resp.Body).Decode(&dir)
	_ = resp.Body.Close()
	if err != nil || len(dir.Meta.Profiles) != 3 || dir.Meta.Profiles["third"] == "" || dir.Meta.Profiles["db"] != "" {
		t.Errorf("%+v, %v", dir, err)
	}
	const path = "/acme/acme/new-order"
	for profile, names := range map[string][]string{"third": {"shared.example"}, "other": {"shared.example", "other.example"}} {
		status, kind, resp := r.Post(path, r.Sign(path, with(acmetest.OrderOf(names...), "profile", profile), nil))
		data, err := io.ReadAll(resp.Body)
		if err != nil || status != http.StatusCreated || !strings.Contains(string(data), `"profile":"`+profile+`"`) {
			t.Errorf("%d %s %s, %v", status, kind, data, err)
		}
	}
	status, _, resp := r.Post(path, r.Sign(path, acmetest.OrderOf("web.example"), nil)) // the server says which it chose
	data, err := io.ReadAll(resp.Body)
	if err != nil || status != http.StatusCreated || !strings.Contains(string(data), `"profile":"web"`) {
		t.Errorf("%d %s, %v", status, data, err)
	}
}

// A wildcard of a profile is proven by dns-01, and by nothing else (RFC 8555 §8.3, §8.4).
func TestACMEWildcard(t *testing.T) {
	w := acmetest.Start(t, catest.Options{})
	cl := w.Account(t)
	o, err := acmetest.Order(t, cl, "*.api.example", "api.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range o.AuthzURLs {
		az, err := cl.GetAuthorization(t.Context(), url)
		if err != nil || az.Identifier.Value != "api.example" || az.Wildcard && len(az.Challenges) != 1 {
			t.Errorf("%+v, %v", az, err)
		}
	}
	if got := w.Obtain(t, cl, "dns-01", "*.api.example"); got.Leaf.DNSNames[0] != "*.api.example" {
		t.Errorf("%q", got.Leaf.DNSNames)
	}
	w.Check(t)
}
