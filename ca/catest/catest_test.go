package catest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
)

// TestStart uses the kit with all hooks.
func TestStart(t *testing.T) {
	edited, wrapped := false, false
	c := catest.Start(t, catest.Options{
		Lifetime: 10 * time.Second,
		Profiles: map[string]policy.Profile{"mine": {Names: []string{"mine"}}},
		Edit:     func(b []byte) []byte { edited = true; return b },
		Wrap:     func(h http.Handler) http.Handler { wrapped = true; return h },
	})
	if !edited || !wrapped || c.URL == "" || len(c.Roots()) != 1 || len(c.RootFingerprint) != 64 {
		t.Errorf("%+v", c)
	}
	if c.Token(t, "mine").IsZero() || c.RevokeToken(t, "1").IsZero() {
		t.Error("no tokens")
	}
	c.Check(t)
}
