package uploads

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/settings"
)

// For each field and each kind of URL, the settings accept the same URLs as the library.
func TestSettingsAndLibraryTakeTheSameURLs(t *testing.T) {
	fields := map[string]func(*ingestclient.Config, string){
		"ADMIN_MODULE__TOKEN_URL": func(c *ingestclient.Config, url string) { c.TokenURL = url },
		"ADMIN_MODULE__REGISTRY_URL": func(c *ingestclient.Config, url string) {
			c.RegistryURL, c.Elements = url, nil
		},
		"STORAGE_ELEMENT__BASE_URL": func(c *ingestclient.Config, url string) {
			c.Elements = nil
			for u := range strings.FieldsSeq(url) {
				c.Elements = append(c.Elements, ingestclient.Element{URL: u})
			}
		},
	}
	for name, url := range map[string]string{
		"plain": "http://a", "port": "http://a:1/x", "capitals": "HTTP://A/x", "slash": "http://a/", "query": "http://a/token?p=b2c", "empty query": "http://a/token?",
		"fragment": "http://a/#x", "user": "http://u@a/", "password": "http://u:p@a/", "no host": "http:///x", "port only": "http://:1/x",
		"no scheme": "a/x", "other scheme": "ftp://a", "no URL": "http://%zz", "underscore": "http://a_b:1/x", "IPv6": "http://[::1]:1/x", "https without TLS": "https://a", "twice": "http://a http://a/",
	} {
		for variable, set := range fields {
			env := map[string]string{
				"TLS__ENABLED": "no", "TLS__ALLOW_CLEARTEXT": "yes", "ADMIN_MODULE__TOKEN_URL": "http://t", "STORAGE_ELEMENT__BASE_URL": "http://s",
				"SERVICE_ACCOUNT__CLIENT_ID": "x", "SERVICE_ACCOUNT__CLIENT_SECRET": "y",
			}
			if variable == "ADMIN_MODULE__REGISTRY_URL" {
				delete(env, "STORAGE_ELEMENT__BASE_URL")
			}
			env[variable] = url
			var environ []string
			for k, v := range env {
				environ = append(environ, k+"="+v)
			}
			given, program := settings.Collect(settings.Input{Environ: environ}).Parse()
			cfg := ingestclient.Config{
				TokenURL: "http://t", Elements: []ingestclient.Element{{URL: "http://s"}}, AllowCleartext: true, Logger: slog.New(slog.DiscardHandler),
				ClientID: "x", ClientSecret: clientSecret(settings.Text{}),
			}
			set(&cfg, url)
			client, library := ingestclient.New(cfg, nil)
			if library == nil {
				_ = client.Close()
			}
			if (program == nil) != (library == nil) {
				t.Errorf("%s=%s (%s): the program says %v, the library %v", variable, url, name, program, library)
			}
			if program != nil {
				continue
			}
			if made, err := ingestConfig(given, slog.New(slog.DiscardHandler)); err != nil || made.TokenURL != cfg.TokenURL || made.RegistryURL != cfg.RegistryURL {
				t.Errorf("%s=%s is used as %q and %q: %v", variable, url, made.TokenURL, made.RegistryURL, err)
			}
		}
	}
}
