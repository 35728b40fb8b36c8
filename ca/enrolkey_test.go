package ca_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/doctor"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/secret"
)

// "step crypto jwk create" writes a JWE in JSON (RFC 7516 §7.2), and init writes the
// compact form. Both are read, doctor sees that both are encrypted, and clients get
// the compact form of either.
func TestEnrolmentKeyForms(t *testing.T) {
	t.Parallel()
	const password = "correct-horse-battery"
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, Password: secret.New(password)}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "secrets", "enrolment.jwe")
	compact, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	jwe, err := jose.ParseEncrypted(strings.TrimSpace(string(compact)))
	if err != nil {
		t.Fatal(err)
	}
	var indented any
	if err := json.Unmarshal([]byte(jwe.FullSerialize()), &indented); err != nil {
		t.Fatal(err)
	}
	asStep, err := json.MarshalIndent(indented, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"compact": compact, "JSON": asStep} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ca.StateDir(dir).NewToken(t.Context(), ca.TokenOptions{Password: secret.New(password), Service: "ingester"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := ca.StateDir(dir).NewToken(t.Context(), ca.TokenOptions{Password: secret.New("another one"), Service: "ingester"}); err == nil || !strings.Contains(err.Error(), "wrong password") {
			t.Errorf("%s, wrong password: %v", name, err)
		}
		for _, d := range doctor.Run(t.Context(), doctor.Options{Dir: dir, Password: secret.New(password)}) {
			if strings.Contains(d.Text, "not encrypted") {
				t.Errorf("%s: %s", name, d.Text)
			}
		}
		if text, err := ca.PublishedKey(dir); err != nil || text != strings.TrimSpace(string(compact)) {
			t.Errorf("%s is published as %.20q, %v", name, text, err)
		}
	}
}

// publish_encrypted_key refuses a key that is not encrypted: the authority would give
// its enrolment key to everybody.
func TestPlainKeyIsNotPublished(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pki.yaml")
	yaml, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	yaml = []byte(strings.Replace(string(yaml), "  - type: JWK\n", "  - type: JWK\n    publish_encrypted_key: true\n", 1))
	if err := os.WriteFile(path, yaml, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
	if err == nil {
		_ = a.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "publishing the encrypted key: ") || !strings.Contains(err.Error(), "enrolment.jwe is not encrypted") {
		t.Errorf("opened: %v", err)
	}
}
