package ingestclient_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/secret"
)

// TestAccessTokenIsTheCachedOne expects the token that uploads use, with one request for
// all, with what it is bound to, and never printed.
func TestAccessTokenIsTheCachedOne(t *testing.T) {
	w := newServers(t, nil)
	first, err := w.c.AccessToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.c.Upload(t.Context(), ingestclient.BytesContent("a", nil), ingestclient.Meta{}); err != nil {
		t.Fatal(err)
	}
	again, err := w.c.AccessToken(t.Context())
	if err != nil || again != first || w.admin.count() != 1 {
		t.Errorf("%v; the same token: %t; %d fetches, want 1", err, again == first, w.admin.count())
	}
	if !first.Bound || first.Opaque || first.Thumbprint == "" || w.storage.stale > 0 {
		t.Errorf("bound %t, opaque %t, thumbprint %q: want it bound to the client's certificate", first.Bound, first.Opaque, first.Thumbprint)
	}
	if left := time.Until(first.ExpiresAt); left > 1795*time.Second || left < 1700*time.Second {
		t.Errorf("%s are left of a token of 1800 s", left)
	}
	if text := fmt.Sprintf("%+v %#v", first, &first); strings.Contains(text, first.Value.Expose()) {
		t.Errorf("printing a token shows it: %s", text)
	}
}

// TestRejectedAccessToken expects that a rejected token is replaced once, and that a
// late rejection of an older one changes nothing.
func TestRejectedAccessToken(t *testing.T) {
	w := newServers(t, nil)
	old, err := w.c.AccessToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w.c.RejectToken(secret.New("another")) {
		t.Error("a token that the client never had was rejected")
	}
	if !w.c.RejectToken(old.Value) {
		t.Error("the current token was not rejected")
	}
	if w.c.RejectToken(old.Value) {
		t.Error("the token was rejected twice")
	}
	fresh, err := w.c.AccessToken(t.Context())
	if err != nil || fresh.Value == old.Value {
		t.Errorf("%v; after the rejection the same token: %t", err, fresh.Value == old.Value)
	}
	if w.c.RejectToken(old.Value) || w.admin.count() != 2 {
		t.Errorf("a late rejection of the old token counted; %d fetches, want 2", w.admin.count())
	}
}

// TestAccessTokenWithoutBinding expects what is known of an opaque token and of an
// unbound one.
func TestAccessTokenWithoutBinding(t *testing.T) {
	for name, c := range map[string]struct {
		token  string
		opaque bool
	}{
		"opaque": {"just-a-text", true},
		"a JWT":  {"e30.e30.c2ln", false},
	} {
		w := newServers(t, nil)
		cfg := w.cfg
		cfg.TokenURL = w.serve(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"access_token":%q,"expires_in":60}`, c.token)
		})
		client, err := ingestclient.NewWithFake(cfg, w.fake, mid)
		if err != nil {
			t.Fatal(err)
		}
		got, err := client.AccessToken(t.Context())
		if err != nil || got.Bound || got.Opaque != c.opaque {
			t.Errorf("%s: %v; bound %t, opaque %t", name, err, got.Bound, got.Opaque)
		}
		_ = client.Close()
	}
}

// TestAccessTokenErrors expects the errors of uploads: of the endpoint, of the deadline
// of the caller, of a closed client.
func TestAccessTokenErrors(t *testing.T) {
	w := newServers(t, func(cfg *ingestclient.Config) { cfg.ClientSecret = fixedSecret("wrong") })
	if _, err := w.c.AccessToken(t.Context()); !errors.Is(err, ingestclient.ErrCredentials) {
		t.Errorf("a wrong secret: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	fresh := newServers(t, nil)
	if _, err := fresh.c.AccessToken(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gave up: %v", err)
	}
	_ = w.c.Close()
	if _, err := w.c.AccessToken(t.Context()); !errors.Is(err, ingestclient.ErrClosed) {
		t.Errorf("a closed client: %v", err)
	}
}
