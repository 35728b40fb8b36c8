package settings_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/settings"
)

// enough is a set without TLS, so that nothing on disk is needed.
func enough(more ...string) []string {
	return append([]string{
		"TLS__ENABLED=off", "TLS__ALLOW_CLEARTEXT=yes", "ADMIN_MODULE__BASE_URL=http://admin:8000/", "STORAGE_ELEMENT__BASE_URL=http://s1, http://s2",
		"SERVICE_ACCOUNT_CLIENT_ID=sa_prod_x", "SERVICE_ACCOUNT_CLIENT_SECRET=:hC%=#>a9q,GwunR",
	}, more...)
}

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestValues(t *testing.T) {
	s, err := settings.Collect(settings.Input{Environ: enough(
		"ADMIN_MODULE__TIMEOUT=2.5", "STORAGE_ELEMENT_TIMEOUT=1m30s", "UPLOAD__MIN_RATE=64KiB/s", "UPLOAD__STALL_TIMEOUT=off",
		"STORAGE_ELEMENT__HTTP2=1", "TLS__PROTOCOL_VERSION=tlsv1.2", "TLS__CIPHERS=ECDHE-RSA-AES128-GCM-SHA256:TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")}).Parse()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := s.Account.Secret.Read()
	if err != nil || secret.Expose() != ":hC%=#>a9q,GwunR" {
		t.Errorf("the secret did not survive: %v", err)
	}
	if s.Token.URL != "http://admin:8000/api/v1/auth/token" || !slices.Equal(s.Storage.URLs, []string{"http://s1", "http://s2"}) ||
		s.Token.Timeout != 2500*time.Millisecond || s.Storage.Timeout != 90*time.Second || s.Upload.MinRate != 64<<10 || s.Upload.StallTimeout != -1 ||
		!s.Storage.HTTP2 || s.Storage.PoolSize != 100 || s.Storage.MaxRetries != 3 || s.Token.Lag != 15*time.Second || s.Upload.ExpectFrom != 1<<20 {
		t.Errorf("%+v", s)
	}
	if s.TLS.MinVersion != tls.VersionTLS12 || !slices.Equal(s.TLS.CipherSuites, []uint16{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	}) {
		t.Errorf("%+v", s.TLS)
	}
}

// All mistakes are reported at once, in the order of the table, and without secrets.
func TestEverythingWrongAtOnce(t *testing.T) {
	_, err := settings.Collect(settings.Input{Environ: []string{
		"ADMIN_MODULE__TIMEOUT=soon", "STORAGE_ELEMENT__CONNECTION_POOL_SIZE=-1", "TLS__ENABLED=maybe", "TLS__VERIFY_MODE=CERT_NONE",
		"UPLOAD__MIN_RATE=fast", "ADMIN_MODULE__DIALECT=xml", "ADMIN_MODULE__BASE_URL=ftp://canary-password@x", "TLS__CIPHERS=HIGH RC4-SHA",
		"TLS__NONSENSE_AND_MORE=1", "TLS_CERT_FIEL=x", "TLS_UNRELATED=1", "STORAGE_ELEMENT_PORT_8000_TCP=tcp://x", "SERVICE_ACCOUNT__CLIENT_SECRET_FILE=/absent/canary",
	}}).Parse()
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	text := err.Error()
	at := -1
	for _, want := range []string{
		"TLS__NONSENSE_AND_MORE: no such setting", "TLS_CERT_FIEL: no such setting: did you mean TLS_CERT_FILE?",
		"ADMIN_MODULE__BASE_URL: must start with https://", `ADMIN_MODULE__TIMEOUT: "soon" is no length of time`, `ADMIN_MODULE__DIALECT: "xml" is not one of json, form`,
		"SERVICE_ACCOUNT__CLIENT_ID: is missing", "SERVICE_ACCOUNT__CLIENT_SECRET (SERVICE_ACCOUNT__CLIENT_SECRET_FILE): open /absent/canary",
		"STORAGE_ELEMENT__BASE_URL: is missing", `CONNECTION_POOL_SIZE: "-1" is not a whole number`, `TLS__ENABLED: "maybe" is no switch`,
		`TLS__CIPHERS: "HIGH" is no cipher suite`, `TLS__CIPHERS: "RC4-SHA" is insecure`, `TLS__VERIFY_MODE: "CERT_NONE" is not one of`, `UPLOAD__MIN_RATE: "fast" is no size`,
	} {
		i := strings.Index(text, want)
		if i <= at {
			t.Errorf("%q is not there, or not in its place", want)
		}
		at = max(at, i)
	}
	for _, not := range []string{"canary-password", "UNRELATED", "PORT_8000"} {
		if strings.Contains(text, not) {
			t.Errorf("%q is in it", not)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestCiphers(t *testing.T) {
	const all = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"
	for _, c := range []struct{ version, list, want string }{
		{"TLSv1.3", all, ""},
		{"TLSv1.3", "TLS_AES_128_GCM_SHA256", "leaves out TLS_AES_256_GCM_SHA384 and TLS_CHACHA20_POLY1305_SHA256"},
		{"TLSv1.3", all + ":ECDHE-RSA-AES128-GCM-SHA256", "is a suite of TLS 1.2"},
		{"TLSv1.2", all, ""},
		{"TLSv1.2", all + ",ECDHE-RSA-AES256-GCM-SHA384", ""},
		{"TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305 ECDHE-RSA-AES128-SHA", ""},
		{"TLSv1.2", "TLS_AES_128_GCM_SHA256 ECDHE-RSA-AES128-GCM-SHA256", "leaves out"},
		{"TLSv1.2", "AES128-SHA", "insecure"},
		{"TLSv1.2", "DES-CBC3-SHA", "insecure"},
		{"TLSv1.2", "ECDHE+AESGCM", "no cipher suite"},
	} {
		_, err := settings.Collect(settings.Input{Environ: enough("TLS__PROTOCOL_VERSION="+c.version, "TLS__CIPHERS="+c.list)}).Parse()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %q", c.version, c.list, err, c.want)
		}
	}
}

func TestFiles(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"s.yaml":   {"admin_module:\n  base_url: https://a\nstorage_element:\n  base_url: [https://x, https://y]\n", ""},
		"e.yml":    {"", ""},
		"n.yaml":   {"# nothing yet\n", ""},
		"dup.yaml": {"tls:\n  key_file: a\n  key_file: b\n", "dup.yaml:2 too"},
		"two.yaml": {"tls: {}\n---\ntls: {}\n", "more than one YAML document"},
		"nest.yml": {"tls:\n  key_file: {a: b}\n", `nest.yml:2: "key_file": want a plain value`},
		"flat.yml": {"tls: yes\n", `flat.yml:1: "tls": want keys with values`},
		"bad.yaml": {"tls:\n\tx: `canary`\n", "bad.yaml:2: not YAML"},
		"a.env":    {"# c\n\nexport TLS_KEY_FILE = 'a b'\n", ""},
		"q.env":    {"TLS_KEY_FILE='a\n", "q.env:1: TLS_KEY_FILE: the closing quote is missing"},
		"db.env":   {"DB_HOST=x\n", `db.env:1: no such setting: "DB_HOST"`},
	} {
		path := write(t, name, c.text, 0o600)
		err := settings.Collect(settings.Input{File: path}).Problems()
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := settings.Collect(settings.Input{File: "/absent"}).Problems(); err == nil {
		t.Error("a file that is not there is no problem")
	}
}

// A name means one setting, and every setting parses its own default and has a text.
func TestTable(t *testing.T) {
	seen := map[string]string{}
	for _, r := range settings.Table() {
		for _, name := range append(r.Variables(), r.Key, r.Flag, r.FileFlag) {
			if other, twice := seen[name]; twice && name != "" {
				t.Errorf("%s is of %s and of %s", name, other, r.Key)
			}
			seen[name] = r.Key
		}
		if r.Doc == "" || r.Flag != "" && r.Arg == "" && !r.IsBool() {
			t.Errorf("%s lacks its sentence or the name of its argument", r.Key)
		}
	}
}

// FuzzFile: no file makes Collect panic, hang or quote a secret, and what it
// accepts is shown with an origin inside of the file.
func FuzzFile(f *testing.F) {
	f.Add("tls:\n  key_file: x\n", true)
	f.Add("export TLS_KEY_FILE='x'\n", false)
	f.Add("a: &b {c: *b}\n", true)
	f.Fuzz(func(t *testing.T, text string, isYAML bool) {
		name := "f.env"
		if isYAML {
			name = "f.yaml"
		}
		path := write(t, name, text, 0o600)
		collected := settings.Collect(settings.Input{File: path})
		for _, l := range collected.Lines() {
			if l.Origin != "default" && !strings.HasPrefix(l.Origin, path+":") {
				t.Errorf("%+v", l)
			}
		}
		if _, err := collected.Parse(); err == nil {
			t.Skip("all that is needed was in it")
		}
	})
}
