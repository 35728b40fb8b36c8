package enroll_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation/enroll"
)

// TestReadConfig expects that a renewal finds where the certificate came from.
func TestReadConfig(t *testing.T) {
	a, url := listen(t)
	dir := filepath.Join(t.TempDir(), "d")
	if _, err := enroll.ReadConfig(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	pin := strings.Repeat("AB:", 31) + "AB"
	cfg := enroll.Config{URL: url, Dir: dir, Roots: a.bundle(), RootFingerprint: pin, AuthorityName: "127.0.0.1", KeyType: "EC-P384", Token: once(a.token("svc"))}
	if _, err := enroll.Issue(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	got, err := enroll.ReadConfig(dir)
	if err != nil || got.URL != url || got.RootFingerprint != pin || got.AuthorityName != "127.0.0.1" || got.KeyType != "EC-P384" || got.Dir != dir {
		t.Fatalf("%+v, %v", got, err)
	}
	// A renewal without the anchor forgets nothing, and follows the key.
	if _, err := enroll.Renew(t.Context(), enroll.Config{URL: url, Dir: dir, AuthorityName: "127.0.0.1", KeyType: "Ed25519"}); err != nil {
		t.Fatal(err)
	}
	if got, err := enroll.ReadConfig(dir); err != nil || got.RootFingerprint != pin || got.KeyType != "Ed25519" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestReadConfigRefuses(t *testing.T) {
	const good = `{"version":1,"url":"https://ca.test"}`
	for name, spoil := range map[string]func(path string) error{
		"others can write it": func(p string) error { return os.Chmod(p, 0o666) },
		"the directory":       func(p string) error { return os.Chmod(filepath.Dir(p), 0o777) },
		"a link": func(p string) error {
			return errors.Join(os.Rename(p, p+".moved"), os.Symlink(p+".moved", p))
		},
		"a directory": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
		"too long":    func(p string) error { return os.WriteFile(p, []byte(good+strings.Repeat(" ", 5000)), 0o600) },
		"unknown member": func(p string) error {
			return os.WriteFile(p, []byte(`{"version":1,"url":"https://ca.test","token":"x"}`), 0o600)
		},
		"another version": func(p string) error { return os.WriteFile(p, []byte(`{"version":2,"url":"https://ca.test"}`), 0o600) },
		"cleartext":       func(p string) error { return os.WriteFile(p, []byte(`{"version":1,"url":"http://ca.test"}`), 0o600) },
		"two values":      func(p string) error { return os.WriteFile(p, []byte(good+good), 0o600) },
		"no key type": func(p string) error {
			return os.WriteFile(p, []byte(`{"version":1,"url":"https://ca.test","key_type":"DES"}`), 0o600)
		},
		"no fingerprint": func(p string) error {
			return os.WriteFile(p, []byte(`{"version":1,"url":"https://ca.test","root_fingerprint":"1"}`), 0o600)
		},
		"nothing": func(p string) error { return os.WriteFile(p, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "authority.json")
			if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := enroll.ReadConfig(dir); err != nil {
				t.Fatal(err)
			}
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			if cfg, err := enroll.ReadConfig(dir); err == nil {
				t.Errorf("accepted: %+v", cfg)
			}
		})
	}
}

// FuzzAuthorityFile: what is read can be written, and is the same when read again.
func FuzzAuthorityFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"url":"https://ca.test:8443/","root_fingerprint":"` + strings.Repeat("ab", 32) + `","authority_name":"ca","key_type":"Ed25519"}`))
	f.Add([]byte(`{"version":1,"URL":"https://x","url":"https://y"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if again, err := enroll.RewriteOrigin(data); err == nil {
			if third, err := enroll.RewriteOrigin(again); err != nil || string(third) != string(again) {
				t.Errorf("%q became %q, then %q: %v", data, again, third, err)
			}
		}
	})
}

// Over the life of a certificate there is one moment from which it is due, within
// the window in which a source renews; and certificates have different ones.
func TestRenewalIsDueOnce(t *testing.T) {
	points := map[time.Duration]bool{}
	for range 8 {
		leaf := material(t, "x").Certificate.Leaf
		life, was := leaf.NotAfter.Sub(leaf.NotBefore), false
		for share := range 1000 {
			at := leaf.NotBefore.Add(life * time.Duration(share) / 1000)
			due := enroll.Due(leaf, at)
			if was && !due {
				t.Fatalf("no more due at %d", share)
			}
			if due && !was {
				if share < 590 || share > 710 {
					t.Errorf("due from %d thousandths on", share)
				}
				points[at.Sub(leaf.NotBefore)] = true
			}
			was = due
		}
		if !was || !enroll.Due(leaf, leaf.NotAfter.Add(time.Hour)) {
			t.Error("never due")
		}
	}
	if len(points) < 3 {
		t.Errorf("all at %v", points)
	}
}
