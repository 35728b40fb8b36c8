package statedir_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
)

// TestTwoEnrolmentKeys: while a key is replaced, the one that pki.yaml names signs and is published,
// whichever of the two that is; a third one is an error.
func TestTwoEnrolmentKeys(t *testing.T) {
	t.Parallel()
	f := statedir.Dir{Path: t.TempDir(), Password: oldPassword}
	must(t, os.Mkdir(filepath.Join(f.Path, "secrets"), 0o700))
	var public []*jose.JSONWebKey
	for range 3 {
		key, err := jose.GenerateJWK("EC", jose.P256, jose.ES256, "sig", "", 0)
		must(t, err)
		p := key.Public()
		if public = append(public, &p); len(public) < 3 {
			must(t, f.AddJWK("enrolment", public[0], key))
		}
	}
	for i, want := range []bool{true, true, false} {
		key, err := f.ReadJWK("enrolment", public[i])
		if (err == nil) != want || want && key.KeyID != public[i].KeyID {
			t.Errorf("key %d: %v", i, err)
		}
		text, err := f.ReadJWE("enrolment", public[i])
		if (err == nil) != want {
			t.Errorf("published key %d: %v", i, err)
		}
		if want {
			jwe, err := jose.ParseEncrypted(text)
			must(t, err)
			plain, err := jwe.Decrypt([]byte(oldPassword.Expose()))
			if err != nil || !strings.Contains(string(plain), public[i].KeyID) {
				t.Errorf("published key %d is another one, %v", i, err)
			}
		}
	}
	must(t, f.KeepJWK("enrolment", public[1]))
	if _, err := f.ReadJWK("enrolment", public[0]); err == nil || !strings.Contains(err.Error(), "it is not the key that pki.yaml has") {
		t.Errorf("the key that was replaced: %v", err)
	}
	if text, err := f.ReadJWE("enrolment", nil); err != nil || strings.Count(text, ".") != 4 {
		t.Errorf("the one that is left, in the compact form: %v", err)
	}
}

// FuzzForms: whatever a file of secrets has, reading it ends in a key or in an error, and no panic.
// What opens without a password needs none.
func FuzzForms(f *testing.F) {
	for _, text := range []string{"", "{}", "eyJ\neyJ\n", "-----BEGIN X-----\n-----END X-----\n", `{"kty":"EC"}` + "\neyJhbGciOiJQ.a.b.c.d"} {
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, jwe bool) {
		if strings.Contains(text, "p2c") || strings.Contains(text, "ENCRYPTED") {
			return // deriving a key from a password is slow on purpose
		}
		dir := statedir.Dir{Path: t.TempDir(), Password: oldPassword}
		must(t, os.MkdirAll(filepath.Join(dir.Path, "secrets"), 0o700))
		name := "secrets/x.key"
		if jwe {
			name = "secrets/x.jwe"
		}
		must(t, os.WriteFile(dir.File(name), []byte(text), 0o600))
		changed, _, err := dir.ChangePassword(statedir.PasswordChange{To: newPassword, DryRun: true})
		if err == nil && len(changed) != 1 {
			t.Errorf("%q: nothing to change", text)
		}
	})
}
