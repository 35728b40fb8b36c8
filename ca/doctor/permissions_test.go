//go:build unix

package doctor_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/doctor"
	"github.com/artstore/artstore-pki/ca/setup"
)

// doctor looks at owners too: of a directory that another user has as a whole, of one
// file of another user, of a directory above to which everybody can write, and of
// secrets elsewhere.
func TestDoctorOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const stranger = 1600
	give := func(paths ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			for _, p := range paths {
				if err := os.Chown(filepath.Join(dir, p), stranger, -1); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, tc := range map[string]struct {
		damage   func(*testing.T, string)
		severity string
		want     string
	}{
		"sound":           {func(*testing.T, string) {}, doctor.OK, "the owner's alone"},
		"the directory":   {give("."), doctor.Warning, "ca belongs to user 1600, who can read and change all of it"},
		"a secret":        {give("secrets/enrolment.jwe"), doctor.Error, "enrolment.jwe belongs to user 1600"},
		"a certificate":   {give("certs/current.json"), doctor.Error, "current.json belongs to user 1600"},
		"the one above":   {give(".."), doctor.Error, "belongs to user 1600, who can replace what is below"},
		"all write above": {chmodTo("..", 0o777), doctor.Error, "has mode 0777, want 0755: others can replace"},
		"sticky above":    {chmodTo("..", 0o777|fs.ModeSticky), doctor.OK, "the owner's alone"},
		"the password":    {chmodTo("../password", 0o644), doctor.Error, "password has mode 0644, want 0600"},
	} {
		t.Run(name, func(t *testing.T) {
			parent := filepath.Join(t.TempDir(), "above")
			dir, password := filepath.Join(parent, "ca"), filepath.Join(parent, "password")
			if err := os.Mkdir(parent, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(password, []byte("correct-horse-battery"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
				t.Fatal(err)
			}
			tc.damage(t, dir)
			found := ""
			for _, d := range doctor.Run(t.Context(), doctor.Options{Dir: dir, PasswordFile: password}) {
				if d.Check == "permissions" {
					found += d.Severity + " " + d.Text + "\n"
				}
			}
			if !strings.HasPrefix(found, tc.severity+" ") || !strings.Contains(found, tc.want) || strings.Count(found, "\n") != 1 {
				t.Errorf("found:\n%swant one %s …%s", found, tc.severity, tc.want)
			}
		})
	}
}

func chmodTo(path string, mode fs.FileMode) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Chmod(filepath.Join(dir, path), mode); err != nil {
			t.Fatal(err)
		}
	}
}
