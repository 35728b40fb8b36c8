//go:build unix

package fileperm_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/fileperm"
)

// place is one file or directory as a test arranges it.
type place struct {
	mode fs.FileMode
	uid  int // -1 leaves it to the user of the test
}

const stranger = 1600

// What is found about dir/secret, for owners and modes of both. Giving files away
// takes root; the rows that do not can run as anybody.
func TestSecretFile(t *testing.T) {
	own, root := -1, 0
	for name, tc := range map[string]struct {
		dir, file place
		want      []string // beginnings, after the name of the place
	}{
		"sound":                     {place{0o700, own}, place{0o600, own}, nil},
		"readable by the group":     {place{0o700, own}, place{0o660, own}, []string{"secret has mode 0660, want 0600"}},
		"readable by all":           {place{0o755, own}, place{0o644, own}, []string{"secret has mode 0644, want 0600"}},
		"in a directory of all":     {place{0o777, own}, place{0o600, own}, []string{"dir has mode 0777, want 0755: others can replace"}},
		"in one with a sticky bit":  {place{0o777 | fs.ModeSticky, own}, place{0o600, own}, nil},
		"in one that all look into": {place{0o755, own}, place{0o600, own}, nil},
		"root's, for a group":       {place{0o750, root}, place{0o640, root}, nil},
		"root's, for all":           {place{0o755, root}, place{0o644, root}, []string{"secret has mode 0644"}},
		"a stranger's":              {place{0o700, own}, place{0o600, stranger}, []string{"secret belongs to user 1600"}},
		"in a stranger's directory": {place{0o755, stranger}, place{0o600, own}, []string{"dir belongs to user 1600, who can replace"}},
		"all a stranger's":          {place{0o777, stranger}, place{0o644, stranger}, []string{"secret belongs", "secret has mode", "dir belongs", "dir has mode"}},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 && (tc.dir.uid != own || tc.file.uid != own) {
				t.Skip("only root can give files away")
			}
			parent := t.TempDir()
			dir := filepath.Join(parent, "dir")
			path := filepath.Join(dir, "secret")
			arrange(t, dir, path, tc.dir, tc.file)
			got := fileperm.SecretFile(path)
			if len(got) != len(tc.want) {
				t.Fatalf("found %q, want %q", got, tc.want)
			}
			for i, want := range tc.want {
				if rest := strings.TrimPrefix(strings.TrimPrefix(got[i], dir+"/"), parent+"/"); !strings.HasPrefix(rest, want) {
					t.Errorf("found %q, want %q…", got[i], want)
				}
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if exposed := strings.Contains(strings.Join(got, "\n"), "secret has mode"); fileperm.Exposed(info) != exposed {
				t.Errorf("Exposed says %v", fileperm.Exposed(info))
			}
		})
	}
}

func arrange(t *testing.T, dir, path string, d, f place) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for at, p := range map[string]place{path: f, dir: d} {
		if p.uid >= 0 {
			if err := os.Chown(at, p.uid, -1); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(at, p.mode); err != nil {
			t.Fatal(err)
		}
	}
}

// A link leads to another directory: both its own and that one are judged.
func TestParentsBehindLinks(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	arrange(t, open, filepath.Join(open, "secret"), place{0o777, -1}, place{0o600, -1})
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(open, "secret"), link); err != nil {
		t.Fatal(err)
	}
	if got := fileperm.SecretFile(link); len(got) != 1 || !strings.HasPrefix(got[0], open+" has mode 0777") {
		t.Errorf("found %q", got)
	}
	if got := fileperm.SecretFile(filepath.Join(dir, "absent")); len(got) != 0 {
		t.Errorf("an absent file: %q", got)
	}
}

// Others may own what the caller names.
func TestOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := filepath.Join(t.TempDir(), "dir")
	path := filepath.Join(dir, "secret")
	arrange(t, dir, path, place{0o700, stranger}, place{0o600, stranger})
	if got := append(fileperm.File(path, fileperm.Secret, stranger), fileperm.Parents(path, stranger)...); len(got) != 0 {
		t.Errorf("found %q", got)
	}
}
