package settings_test

import (
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/settings"
)

// For each method of authentication, settings that it needs must be there, and settings that it would
// ignore must not.
func TestAccountMethods(t *testing.T) {
	key := write(t, "key.pem", "canary key", 0o600)
	files := []string{"TLS__ALLOW_CLEARTEXT=yes", "ADMIN_MODULE__BASE_URL=http://a", "STORAGE_ELEMENT__BASE_URL=http://s", "SERVICE_ACCOUNT__CLIENT_ID=x"}
	for name, c := range map[string]struct {
		env  []string
		want string // "" if it is good
	}{
		"a key":                {[]string{"SERVICE_ACCOUNT__AUTH_METHOD=private_key_jwt", "SERVICE_ACCOUNT__CLIENT_KEY_FILE=" + key, "ADMIN_MODULE__DIALECT=form", "TLS__ENABLED=no"}, ""},
		"no key":               {[]string{"SERVICE_ACCOUNT__AUTH_METHOD=private_key_jwt", "ADMIN_MODULE__DIALECT=form", "TLS__ENABLED=no"}, "SERVICE_ACCOUNT__CLIENT_KEY: is missing: want SERVICE_ACCOUNT__CLIENT_KEY, SERVICE_ACCOUNT__CLIENT_KEY_FILE, --client-key-file"},
		"a key and a secret":   {[]string{"SERVICE_ACCOUNT__AUTH_METHOD=private_key_jwt", "SERVICE_ACCOUNT__CLIENT_KEY_FILE=" + key, "SERVICE_ACCOUNT__CLIENT_SECRET=canary", "ADMIN_MODULE__DIALECT=form", "TLS__ENABLED=no"}, "SERVICE_ACCOUNT__CLIENT_SECRET: is not used by SERVICE_ACCOUNT__AUTH_METHOD=private_key_jwt"},
		"a key with JSON":      {[]string{"SERVICE_ACCOUNT__AUTH_METHOD=private_key_jwt", "SERVICE_ACCOUNT__CLIENT_KEY_FILE=" + key, "TLS__ENABLED=no"}, "private_key_jwt needs ADMIN_MODULE__DIALECT=form"},
		"an absent key":        {[]string{"SERVICE_ACCOUNT__AUTH_METHOD=private_key_jwt", "SERVICE_ACCOUNT__CLIENT_KEY_FILE=/absent/key", "ADMIN_MODULE__DIALECT=form", "TLS__ENABLED=no"}, "open /absent/key"},
		"TLS without TLS":      {[]string{"SERVICE_ACCOUNT__AUTH_METHOD=tls_client_auth", "ADMIN_MODULE__DIALECT=form", "TLS__ENABLED=no"}, "it needs TLS"},
		"basic":                {[]string{"SERVICE_ACCOUNT__AUTH_METHOD=basic", "SERVICE_ACCOUNT__CLIENT_SECRET=canary", "ADMIN_MODULE__DIALECT=form", "TLS__ENABLED=no"}, ""},
		"basic with JSON":      {[]string{"SERVICE_ACCOUNT__AUTH_METHOD=basic", "SERVICE_ACCOUNT__CLIENT_SECRET=canary", "TLS__ENABLED=no"}, "basic needs ADMIN_MODULE__DIALECT=form"},
		"a scope with JSON":    {[]string{"SERVICE_ACCOUNT__SCOPE=files:write", "SERVICE_ACCOUNT__CLIENT_SECRET=canary", "TLS__ENABLED=no"}, "the JSON endpoint reads no scope"},
		"another method":       {[]string{"SERVICE_ACCOUNT__AUTH_METHOD=magic", "SERVICE_ACCOUNT__CLIENT_SECRET=canary", "TLS__ENABLED=no"}, "is not one of post, basic, private_key_jwt, tls_client_auth"},
		"post without secrets": {[]string{"TLS__ENABLED=no"}, "SERVICE_ACCOUNT__CLIENT_SECRET: is missing"},
	} {
		_, err := settings.Collect(settings.Input{Environ: append(c.env, files...)}).Parse()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: a secret is in it", name)
		}
	}
}

// Storage Elements are named, or listed by a registry, whose address is checked like the others.
func TestRegistry(t *testing.T) {
	base := []string{"TLS__ENABLED=no", "TLS__ALLOW_CLEARTEXT=yes", "ADMIN_MODULE__BASE_URL=http://a", "SERVICE_ACCOUNT__CLIENT_ID=x", "SERVICE_ACCOUNT__CLIENT_SECRET=y"}
	for name, c := range map[string]struct{ env, want string }{
		"listed":   {"ADMIN_MODULE__REGISTRY_URL=http://a/api/v1/storage-elements?status=online", ""},
		"neither":  {"UPLOAD__MAX_RATE=1MiB", "STORAGE_ELEMENT__BASE_URL: is missing"},
		"fragment": {"ADMIN_MODULE__REGISTRY_URL=http://a/x#y", "must end with its path"},
		"no URL":   {"ADMIN_MODULE__REGISTRY_URL=admin", "must start with https://"},
		"with TLS": {"ADMIN_MODULE__REGISTRY_URL=https://a/x", "TLS__ENABLED is false"},
	} {
		s, err := settings.Collect(settings.Input{Environ: append([]string{c.env}, base...)}).Parse()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err == nil && (s.Storage.Registry == "" || len(s.Storage.URLs) != 0) {
			t.Errorf("%s: %+v", name, s.Storage)
		}
	}
	_, err := settings.Collect(settings.Input{Environ: append([]string{"STORAGE_ELEMENT__BASE_URL=http://s", "ADMIN_MODULE__REGISTRY_URL=http://a/x"}, base...)}).Parse()
	if err == nil || !strings.Contains(err.Error(), "want one of the two") {
		t.Errorf("both: %v", err)
	}
}
