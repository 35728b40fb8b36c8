package ca_test

import (
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/policy"
)

// The times of a token are checked with a leeway of a minute, because clocks differ. A
// token that can be used for hours is refused, also with a valid signature.
func TestTokenTimes(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	names := []string{"storage", "localhost", "127.0.0.1"}
	now := time.Now()
	for _, tc := range []struct {
		name    string
		issued  time.Time
		life    time.Duration
		refused string // part of the message; empty means that it works
	}{
		{"good", now, 5 * time.Minute, ""},
		{"expired within the leeway", now.Add(-5*time.Minute - 30*time.Second), 5 * time.Minute, ""},
		{"expired", now.Add(-7 * time.Minute), 5 * time.Minute, "it has expired"},
		{"not valid yet", now.Add(3 * time.Minute), 5 * time.Minute, "it is not valid yet"},
		{"for too long", now, 3 * time.Hour, "lives longer than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			token, err := ca.TokenAt(c.Dir, "enrolment", "storage", tc.issued, tc.life)
			if err != nil {
				t.Fatal(err)
			}
			before := len(listAll(t, c))
			status, body := newClient(t, c, nil).do("POST", "/sign", signRequest(t, token, newKey(t), "storage", names...))
			if tc.refused == "" {
				if status != http.StatusCreated {
					t.Fatalf("%d %s", status, body)
				}
				return
			}
			if status != http.StatusUnauthorized || !strings.Contains(message(t, body), tc.refused) {
				t.Errorf("%d %s, want 401 with %q", status, body, tc.refused)
			}
			if strings.Contains(string(body), token.Expose()[:20]) {
				t.Error("the refusal repeats the token")
			}
			if after := len(listAll(t, c)); after != before {
				t.Errorf("%d certificates recorded for it", after-before)
			}
		})
	}
	c.Check(t)
}

// A token names the authority by the address that clients use: step and smallstep's
// libraries connect to the host and port in its audience.
func TestTokenNamesThePort(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, from, to, want string }{
		{"the port of address", "127.0.0.1:9443", "127.0.0.1:8443", "https://localhost:8443/1.0/sign"},
		{"public_port", "127.0.0.1:9443", "127.0.0.1:8443\npublic_port: 10443", "https://localhost:10443/1.0/sign"},
		{"the port of https", "127.0.0.1:9443", "127.0.0.1:9443\npublic_port: 443", "https://localhost/1.0/sign"},
		{"one that nobody knows yet", "127.0.0.1:9443", "127.0.0.1:0", "https://localhost/1.0/sign"},
	} {
		c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: func(text []byte) []byte {
			return []byte(strings.Replace(string(text), `"`+tc.from+`"`, tc.to, 1))
		}})
		token := c.Token(t, "storage")
		claims, err := base64.RawURLEncoding.DecodeString(strings.Split(token.Expose(), ".")[1])
		if err != nil || !strings.Contains(string(claims), `"aud":"`+tc.want+`"`) {
			t.Errorf("%s: %s, want the audience %s; %v", tc.name, claims, tc.want, err)
		}
		status, body := newClient(t, c, nil).do("POST", "/sign", signRequest(t, token, newKey(t), "storage", "storage", "localhost", "127.0.0.1"))
		if status != http.StatusCreated {
			t.Errorf("%s: %d %s", tc.name, status, body)
		}
	}
	dir := catest.Start(t, catest.Options{}).Dir
	damage.Config(t, dir, "public_port: 70000\n")
	if _, err := policy.Load(dir); err == nil || !strings.Contains(err.Error(), "70000") {
		t.Errorf("a port that is none: %v", err)
	}
}

// The key is found by its id. A token still belongs to the provisioner that it names,
// also if two provisioners have one key.
func TestTokenProvisioner(t *testing.T) {
	t.Parallel()
	sign := func(t *testing.T, c *catest.CA, issuer string) (int, []byte) {
		t.Helper()
		token, err := ca.TokenAt(c.Dir, issuer, "storage", time.Now(), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return newClient(t, c, nil).do("POST", "/sign", signRequest(t, token, newKey(t), "storage", "storage", "localhost", "127.0.0.1"))
	}
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	if status, body := sign(t, c, "other"); status != http.StatusUnauthorized || !strings.Contains(message(t, body), "provisioner is not known") {
		t.Errorf("another name: %d %s", status, body)
	}
	c.Rewrite(t, func(text []byte) []byte {
		own := regexp.MustCompile(`(?m)^  - type: JWK\n.*\n    key:.*\n`).FindString(string(text))
		return withProvisioner(strings.Replace(own, "enrolment", "other", 1))(text)
	})
	if err := c.Authority.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for issuer, want := range map[string]int{"enrolment": http.StatusCreated, "other": http.StatusCreated, "third": http.StatusUnauthorized} {
		if status, body := sign(t, c, issuer); status != want {
			t.Errorf("%s: %d %s", issuer, status, body)
		}
	}
	c.Check(t)
}
