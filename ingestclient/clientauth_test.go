package ingestclient_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"

	"github.com/artstore/artstore-pki/ingestclient"
)

func fixedKey(key crypto.Signer, kid string) func(context.Context) (crypto.Signer, string, error) {
	return func(context.Context) (crypto.Signer, string, error) { return key, kid, nil }
}

// assertionOf verifies the assertion of a token request and returns its claims.
func assertionOf(t *testing.T, body string, key crypto.Signer) (josejwt.Claims, jose.Header) {
	t.Helper()
	form, err := url.ParseQuery(body)
	if err != nil || form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" ||
		form.Get("client_id") != "sa_test_1" || form.Get("grant_type") != "client_credentials" || form.Has("client_secret") {
		t.Fatalf("%v: %s", err, body)
	}
	raw, err := josejwt.ParseSigned(form.Get("client_assertion"), []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var c josejwt.Claims
	if err := raw.Claims(key.Public(), &c); err != nil {
		t.Fatal(err)
	}
	return c, raw.Headers[0]
}

func TestPrivateKeyJWT(t *testing.T) {
	key := newKey(t)
	begun := time.Now().Truncate(time.Second) // as iat is
	var tokenURL string
	got := askOnce(t, func(c *ingestclient.Config) {
		c.ClientSecret, c.ClientKey, c.Scope = nil, fixedKey(key, "k-7"), "files:write"
		tokenURL = c.TokenURL
	})
	claims, header := assertionOf(t, got.body, key)
	if header.KeyID != "k-7" || claims.Issuer != "sa_test_1" || claims.Subject != "sa_test_1" || len(claims.Audience) != 1 || claims.Audience[0] != tokenURL || claims.ID == "" {
		t.Errorf("%+v %+v", header, claims)
	}
	if life := claims.Expiry.Time().Sub(claims.IssuedAt.Time()); life != time.Minute {
		t.Errorf("good for %v", life)
	}
	if at := claims.IssuedAt.Time(); at.Before(begun) || at.After(time.Now()) {
		t.Errorf("issued %v, the test began %v", at, begun)
	}
	if got.header.Get("Authorization") != "" || !strings.Contains(got.body, "scope=files%3Awrite") {
		t.Errorf("%+v", got)
	}
}

func TestTLSClientAuth(t *testing.T) {
	got := askOnce(t, func(c *ingestclient.Config) { c.ClientSecret, c.ClientAuth = nil, "tls_client_auth" })
	if got.body != "client_id=sa_test_1&grant_type=client_credentials" || got.header.Get("Authorization") != "" {
		t.Errorf("%+v", got)
	}
}

// TestAssertionIsDatedByTheEndpoint expects that a wrong clock here causes one refusal:
// the next assertion has the dates of the endpoint's clock.
func TestAssertionIsDatedByTheEndpoint(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				key := newKey(t)
				e := &fakeServers{status: 401, header: http.Header{"Date": {time.Now().Add(off).UTC().Format(http.TimeFormat)}}}
				cfg := config()
				cfg.ClientSecret, cfg.ClientKey = nil, fixedKey(key, "")
				c := over(t, cfg, ingestclient.NewFakeIdentity(e.generation(1)))
				err := touch(t, c)
				if auth, ok := errors.AsType[*ingestclient.AuthError](err); !ok || !auth.Temporary {
					t.Fatalf("a refusal that will not come again: %v", err)
				}
				time.Sleep(time.Second)
				_ = touch(t, c)
				claims, _ := assertionOf(t, e.secrets[len(e.secrets)-1], key)
				if d := claims.IssuedAt.Time().Sub(time.Now().Add(off)).Abs(); len(e.secrets) != 2 || d > 3*time.Second {
					t.Errorf("%d requests, the last one dated %v off", len(e.secrets), d)
				}
				// The clock is known now: a further refusal is one.
				if auth, ok := errors.AsType[*ingestclient.AuthError](touch(t, c)); !ok || auth.Temporary {
					t.Error("refused for ever, and called temporary")
				}
			})
		})
	}
}

// TestNewKeyEndsTheWait is TestNewSecretEndsTheWait for keys and their ids.
func TestNewKeyEndsTheWait(t *testing.T) {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	first := newKey(t)
	for name, next := range map[string]struct {
		key crypto.Signer
		kid string
	}{"key": {ed, "k"}, "kid": {first, "k2"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &fakeServers{status: 401}
				cur := &struct {
					key crypto.Signer
					kid string
				}{first, "k"}
				cfg := config()
				cfg.ClientSecret = nil
				cfg.ClientKey = func(context.Context) (crypto.Signer, string, error) { return cur.key, cur.kid, nil }
				c := over(t, cfg, ingestclient.NewFakeIdentity(e.generation(1)))
				for range 40 {
					if err := touch(t, c); !errors.Is(err, ingestclient.ErrCredentials) {
						t.Fatal(err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				if e.count() != 1 {
					t.Errorf("a refused key was used %d times in 4 s", e.count())
				}
				cur.key, cur.kid = next.key, next.kid
				e.set(func() { e.status = 0 })
				time.Sleep(ingestclient.Spacing)
				if err := touch(t, c); err != nil {
					t.Fatal(err)
				}
				if _, header := assertionOf(t, e.secrets[1], next.key); header.KeyID != next.kid {
					t.Errorf("kid %q", header.KeyID)
				}
			})
		})
	}
}

// badSigner is a key in hardware that is not always there.
type badSigner struct {
	*ecdsa.PrivateKey
	gone *atomic.Bool
}

var errUnplugged = errors.New("the device is not there")

func (b badSigner) Sign(r io.Reader, d []byte, o crypto.SignerOpts) ([]byte, error) {
	if b.gone.Load() {
		return nil, errUnplugged
	}
	return b.PrivateKey.Sign(r, d, o)
}

func TestKeysThatAreNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{}
		key := badSigner{newKey(t), &atomic.Bool{}}
		var answer atomic.Int64
		cfg := config()
		cfg.ClientSecret = nil
		cfg.ClientKey = func(context.Context) (crypto.Signer, string, error) {
			switch answer.Load() {
			case 0:
				return nil, "", errUnplugged
			case 1:
				return nil, "", nil
			case 2:
				return oddKey{}, "", nil
			}
			return key, "", nil
		}
		key.gone.Store(true)
		c := over(t, cfg, ingestclient.NewFakeIdentity(e.generation(1)))
		for answer.Store(0); answer.Load() < 4; answer.Add(1) {
			err := touch(t, c)
			if auth, ok := errors.AsType[*ingestclient.AuthError](err); !ok || !auth.Temporary || e.count() != 0 {
				t.Errorf("%d: %v after %d requests", answer.Load(), err, e.count())
			}
			time.Sleep(time.Minute)
		}
		key.gone.Store(false)
		if err := touch(t, c); err != nil {
			t.Error(err)
		}
	})
}

type oddKey struct{ crypto.Signer }

func (oddKey) Public() crypto.PublicKey { return "no key" }

func TestClientAuthCombinations(t *testing.T) {
	key := fixedKey(newKey(t), "")
	secret := fixedSecret("s")
	for _, tc := range []struct {
		auth   ingestclient.ClientAuth
		secret bool
		key    bool
		want   string // "" is good
	}{
		{"", true, false, ""},
		{"", false, true, ""},
		{"", false, false, "ClientSecret is nil"},
		{"", true, true, "ClientSecret is set, and ClientAuth private_key_jwt would ignore it"},
		{"json", true, false, ""},
		{"json", false, true, "ClientSecret is nil"},
		{"post", true, false, ""},
		{"basic", true, false, ""},
		{"basic", false, true, "ClientKey is set"},
		{"private_key_jwt", false, true, ""},
		{"private_key_jwt", false, false, "ClientKey is nil"},
		{"tls_client_auth", false, false, ""},
		{"tls_client_auth", true, false, "would ignore it"},
		{"magic", true, false, `unknown ClientAuth "magic"`},
	} {
		cfg := config()
		cfg.ClientAuth, cfg.ClientSecret = tc.auth, nil
		if tc.secret {
			cfg.ClientSecret = secret
		}
		if tc.key {
			cfg.ClientKey = key
		}
		err := ingestclient.Parse(cfg, true)
		if (err == nil) != (tc.want == "") || !strings.Contains(fmt.Sprint(err), tc.want) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	cfg := config()
	cfg.TokenURL, cfg.AllowCleartext, cfg.ClientSecret, cfg.ClientAuth = "http://a", true, nil, "tls_client_auth"
	if err := ingestclient.Parse(cfg, true); err == nil || !strings.Contains(err.Error(), "https TokenURL") {
		t.Error(err)
	}
}
