package acmesrv

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/problem"
)

const fuzzURL = "https://ca.example/acme/acme/key-change"

// fuzzJWS is signed right: with a MAC if secret is set, else with a new key.
func fuzzJWS(f *testing.F, secret []byte, payload string) []byte {
	f.Helper()
	opts := new(jose.SignerOptions).WithHeader("url", fuzzURL)
	key := jose.SigningKey{Algorithm: jose.HS256, Key: secret}
	if secret == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		key = jose.SigningKey{Algorithm: jose.ES256, Key: k}
		opts.EmbedJWK = true
	} else {
		opts.WithHeader("kid", "key")
	}
	signer, err := jose.NewSigner(key, opts)
	if err != nil {
		f.Fatal(err)
	}
	jws, err := signer.Sign([]byte(payload))
	if err != nil {
		f.Fatal(err)
	}
	return []byte(jws.FullSerialize())
}

// isProblem wants a refusal to be a problem of the client that quotes nothing of it.
func isProblem(t *testing.T, err error) {
	t.Helper()
	if p, ok := errors.AsType[*problem.Document](err); !ok || p.Status < 400 || p.Status >= 500 || len(p.Detail) > 1000 {
		t.Errorf("%v", err)
	}
}

// FuzzBinding: whatever is sent as an external account binding, it is refused with
// a problem or has a kid, this URL and a MAC; nothing panics.
func FuzzBinding(f *testing.F) {
	f.Add(fuzzJWS(f, make([]byte, 32), "{}"))
	f.Add(fuzzJWS(f, nil, "{}"))
	f.Add([]byte(`{"protected":"eyJhbGciOiJub25lIn0","payload":"","signature":""}`))
	f.Add([]byte(`"x"`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		jws, kid, err := parseBinding(raw, fuzzURL)
		if err != nil {
			isProblem(t, err)
			return
		}
		if kid == "" || !strings.HasPrefix(jws.Signatures[0].Protected.Algorithm, "HS") {
			t.Errorf("%q", raw)
		}
	})
}

// FuzzKeyChange: an inner JWS that passes is signed by the key in it; nothing panics.
func FuzzKeyChange(f *testing.F) {
	f.Add(fuzzJWS(f, nil, `{"account":"https://ca.example/acme/acme/account/x","oldKey":{}}`))
	f.Add(fuzzJWS(f, nil, `[]`))
	f.Add(fuzzJWS(f, make([]byte, 32), "{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		next, _, err := parseKeyChange(raw, fuzzURL)
		if err != nil {
			isProblem(t, err)
			return
		}
		jws, err := jose.ParseJWS(string(raw))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := jws.Verify(next); err != nil || !next.IsPublic() {
			t.Errorf("%q: %v", raw, err)
		}
	})
}

// FuzzOrder: an order that is taken has at least one name, each in the form of
// profiles and in one spelling; nothing panics.
func FuzzOrder(f *testing.F) {
	for _, s := range []string{
		`{"identifiers":[{"type":"dns","value":"Web.example"},{"type":"ip","value":"::ffff:192.0.2.1"}],"notAfter":"2026-11-28T00:00:00Z","profile":"web"}`,
		`{"identifiers":[{"type":"dns","value":"*.a"}]}`, `{"identifiers":[]}`, `[]`, `{"notBefore":"x"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		req, err := parseOrder(payload)
		if err != nil {
			isProblem(t, err)
			return
		}
		list, err := identifierNames(req.Identifiers)
		if err != nil {
			isProblem(t, problemOf(err))
			return
		}
		seen := make(map[string]bool)
		for _, name := range list {
			if name != strings.ToLower(name) || seen[name] || strings.Contains(name, "_") || name == "localhost" {
				t.Errorf("%q of %s", name, payload)
			}
			seen[name] = true
		}
	})
}

// FuzzAccount: contacts that are taken are few bytes of mailto; nothing panics.
func FuzzAccount(f *testing.F) {
	for _, s := range []string{`{"contact":["mailto:a@b.example"]}`, `{"contact":["mailto:a@b.example?x=y","tel:1"]}`, `{"status":"deactivated"}`, `7`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		req, err := parseAccount(payload)
		if err != nil {
			isProblem(t, err)
			return
		}
		if b, err := json.Marshal(req.Contact); err != nil || strings.Contains(string(b), "mailto:,") {
			t.Errorf("%q, %v", req.Contact, err)
		}
		for _, c := range req.Contact {
			if !strings.HasPrefix(c, "mailto:") || len(c) > maxContact {
				t.Errorf("%q", c)
			}
		}
	})
}
