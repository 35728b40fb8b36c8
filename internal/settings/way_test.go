package settings_test

import (
	"crypto/x509"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/settings"
)

// A trust bundle and a proxy of one side are checked like the others, and are errors where they would
// not be used. A password is never printed.
func TestTrustAndProxyOfOneSide(t *testing.T) {
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert, key := pair(t, x509.Certificate{ExtKeyUsage: client})
	root, _ := pair(t, x509.Certificate{IsCA: true})
	tls := []string{
		"STORAGE_ELEMENT__BASE_URL=https://s", "SERVICE_ACCOUNT__CLIENT_ID=x", "SERVICE_ACCOUNT__CLIENT_SECRET=x",
		"TLS__CERT_FILE=" + write(t, "crt", string(cert), 0o600), "TLS__KEY_FILE=" + write(t, "key", string(key), 0o600), "TLS__CA_CERT_FILE=" + write(t, "ca", string(root), 0o600),
	}
	cleartext := []string{"STORAGE_ELEMENT__BASE_URL=http://s", "ADMIN_MODULE__BASE_URL=http://a", "SERVICE_ACCOUNT__CLIENT_ID=x", "SERVICE_ACCOUNT__CLIENT_SECRET=x", "TLS__ENABLED=no", "TLS__ALLOW_CLEARTEXT=yes"}
	bundle, leaf := write(t, "bundle", string(root), 0o600), write(t, "leaf", string(cert), 0o600)
	for _, side := range []string{"ADMIN_MODULE", "STORAGE_ELEMENT"} {
		for name, c := range map[string]struct {
			base  []string
			given string
			want  string // "" if it is good
		}{
			"a bundle":             {tls, "__CA_CERT_FILE=" + bundle, ""},
			"an absent bundle":     {tls, "__CA_CERT_FILE=/absent/ca.crt", "__CA_CERT_FILE: reading certificates: open /absent/ca.crt"},
			"no authority":         {tls, "__CA_CERT_FILE=" + leaf, "is no authority's certificate"},
			"a bundle for nothing": {cleartext, "__CA_CERT_FILE=" + bundle, "goes with https://"},
			"a proxy":              {tls, "__PROXY_URL=http://u:canary@p:3128", ""},
			"a proxy in a file":    {tls, "__PROXY_URL_FILE=" + write(t, "proxy", "http://u:canary@p:3128\n", 0o600), ""},
			"another proxy":        {tls, "__PROXY_URL=socks5://u:canary@p", "must start with http://"},
			"no host":              {tls, "__PROXY_URL=http://:1", "has no host"},
			"a path":               {tls, "__PROXY_URL=http://u:canary@p/x", "must end with its port"},
			"no URL":               {tls, "__PROXY_URL=http://u:canary@%zz", "is not a URL"},
			"a proxy for nothing":  {cleartext, "__PROXY_URL=http://u:canary@p", "goes with https://"},
		} {
			collected := settings.Collect(settings.Input{Environ: append([]string{side + c.given}, c.base...)})
			s, err := collected.Parse()
			if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), side) || strings.Contains(err.Error(), "canary")) {
				t.Errorf("%s, %s: %v, want %q", side, name, err, c.want)
			}
			for _, l := range collected.Lines() {
				if strings.Contains(l.Value, "canary") {
					t.Errorf("%s, %s: %s shows a password", side, name, l.Variable)
				}
			}
			if err == nil && strings.Contains(c.given, "PROXY") {
				of := map[string]settings.Text{"ADMIN_MODULE": s.Token.Proxy, "STORAGE_ELEMENT": s.Storage.Proxy}[side]
				if u, err := of.URL(); err != nil || u.Host != "p:3128" {
					t.Errorf("%s, %s: %v, %v", side, name, u, err)
				}
			}
		}
	}
}
