package statedir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/internal/durable"
)

func TestDatabase(t *testing.T) {
	dir := t.TempDir()
	elsewhere := filepath.Join(t.TempDir(), "record.db")
	for setting, want := range map[string]string{
		"":                        filepath.Join(dir, "pki.db"),
		"data/record.db":          filepath.Join(dir, "data", "record.db"),
		elsewhere:                 elsewhere,
		"postgres://pki@host/pki": "postgres://pki@host/pki",
	} {
		if got := statedir.Database(dir, setting); got != want {
			t.Errorf("%q is at %s, want %s", setting, got, want)
		}
	}
}

func TestEncrypted(t *testing.T) {
	const sealed = "-----BEGIN ENCRYPTED " + "PRIVATE KEY-----\n"
	for _, tc := range []struct {
		name, content string
		want          bool
	}{
		{"a.key", sealed, true},
		{"b.key", "-----BEGIN " + "PRIVATE KEY-----\n", false},
		{"c.key", "eyJhbGciOiJQ", false}, // the form of another file
		{"d.jwe", "eyJhbGciOiJQ", true},
		{"e.jwe", `{"kty":"EC"}`, false},
		{"f.jwe", "\n{\n \"protected\": \"eyJ\", \"ciphertext\": \"x\"}\n", true},
		{"g.jwe", `{"ciphertext": ""}`, false},
		{"password", "", false},
	} {
		path := filepath.Join(t.TempDir(), tc.name)
		if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := statedir.Encrypted(path); err != nil || got != tc.want {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
	if _, err := statedir.Encrypted(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// Until Publish nothing is at the place, and Discard leaves it as it was, also
// after Publish. What an interrupted attempt left is in nobody's way.
func TestStaging(t *testing.T) {
	for name, there := range map[string]bool{"absent": false, "empty": true} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "there")
			if there {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, parent)
			killed := begin(t, dir) // and never ended
			s := begin(t, dir)
			if _, err := os.Stat(statedir.Path(dir, statedir.ConfigFile)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pki.yaml before the end: %v", err)
			}
			if err := s.Publish(); err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != durable.Dir {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if _, err := statedir.Begin(dir); !errors.Is(err, durable.ErrNotEmpty) {
				t.Errorf("made twice: %v", err)
			}
			if err := killed.Publish(); !errors.Is(err, durable.ErrNotEmpty) {
				t.Errorf("published twice: %v", err)
			}
			if got, err := os.ReadFile(statedir.Path(dir, statedir.ConfigFile)); err != nil || string(got) != s.Dir {
				t.Errorf("pki.yaml is %q, %v", got, err)
			}
			if err := errors.Join(s.Discard(), killed.Discard()); err != nil {
				t.Fatal(err)
			}
			if got := tree(t, parent); !slices.Equal(got, before) {
				t.Errorf("%q is left, want %q", got, before)
			}
		})
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := statedir.Begin(full); !errors.Is(err, durable.ErrNotEmpty) || !slices.Equal(tree(t, full), []string{"x"}) {
		t.Errorf("a full directory: %v, %q", err, tree(t, full))
	}
}

// Killed between two moves into a directory that was there, nothing is in the way
// of the next attempt, and nothing of somebody else is touched.
func TestPublishKilled(t *testing.T) {
	for moves := range 4 {
		dir := t.TempDir()
		killed := begin(t, dir)
		killed.KillAfter(moves)
		if err := killed.Publish(); (moves < 3) != errors.Is(err, statedir.ErrKilled) {
			t.Fatalf("after %d moves: %v", moves, err)
		}
		s, err := statedir.Begin(dir)
		if moves == 3 { // pki.yaml was moved: it is an authority
			if !errors.Is(err, durable.ErrNotEmpty) {
				t.Errorf("made twice: %v", err)
			}
			continue
		}
		if err != nil {
			t.Errorf("after %d moves: %v", moves, err)
			continue
		}
		if err := os.WriteFile(statedir.Path(s.Dir, statedir.ConfigFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Publish(); err != nil {
			t.Errorf("after %d moves: %v", moves, err)
		}
	}
	// A directory that waits for a certificate has request/ in place of pki.yaml.
	for moves := range 3 {
		dir := t.TempDir()
		killed := begin(t, dir)
		if err := errors.Join(os.Mkdir(statedir.Path(killed.Dir, "request"), 0o700), os.Rename(statedir.Path(killed.Dir, statedir.ConfigFile), statedir.Dir{Path: killed.Dir}.RequestedConfig())); err != nil {
			t.Fatal(err)
		}
		killed.KillAfter(moves)
		if err := killed.Publish(); !errors.Is(err, statedir.ErrKilled) {
			t.Fatalf("after %d moves: %v", moves, err)
		}
		if _, err := statedir.Begin(dir); err != nil || statedir.Waiting(dir) {
			t.Errorf("after %d moves: %v", moves, err)
		}
	}
	// Somebody else has put something there meanwhile.
	dir := t.TempDir()
	killed := begin(t, dir)
	killed.KillAfter(0)
	if err := killed.Publish(); !errors.Is(err, statedir.ErrKilled) {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := statedir.Begin(dir); !errors.Is(err, durable.ErrNotEmpty) {
		t.Errorf("beside a file of somebody else: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "theirs")); err != nil {
		t.Error(err)
	}
}

func TestUnfinished(t *testing.T) {
	dir := t.TempDir()
	if statedir.Unfinished(dir) {
		t.Error("an empty directory")
	}
	if err := os.Mkdir(statedir.Path(dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	if !statedir.Unfinished(dir) {
		t.Error("secrets without pki.yaml are not seen")
	}
	if err := os.WriteFile(statedir.Path(dir, statedir.ConfigFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if statedir.Unfinished(dir) {
		t.Error("one with pki.yaml")
	}
}

// begin stages an authority whose pki.yaml holds the name of the staging directory.
func begin(t *testing.T, dir string) *statedir.Staging {
	t.Helper()
	s, err := statedir.Begin(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.Dir, "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"certs/current.json", statedir.RecordFile, statedir.ConfigFile} {
		if err := os.WriteFile(statedir.Path(s.Dir, name), []byte(s.Dir), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// tree is everything below dir.
func tree(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			rel, _ := filepath.Rel(dir, path) // path is below dir
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
