package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/backup"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
)

// remade copies a backup with one file replaced, or taken out if content is nil,
// and a manifest that fits: what somebody makes who can make manifests.
func remade(t testing.TB, data []byte, name string, content []byte) []byte {
	t.Helper()
	type fact struct {
		Size   int    `json:"size"`
		SHA256 string `json:"sha256"`
	}
	facts := map[string]fact{}
	return repack(t, data, func(h *tar.Header, b []byte) []byte {
		if h.Name == name {
			if b = content; b == nil {
				return nil
			}
		}
		if h.Name != "manifest.json" {
			sum := sha256.Sum256(b)
			facts[h.Name] = fact{len(b), hex.EncodeToString(sum[:])}
			return b
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		m["files"] = facts
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return out
	})
}

// A backup that is whole but no authority is refused, and leaves nothing.
func TestRestoreChecksTheAuthority(t *testing.T) {
	c := catest.Start(t, catest.Options{})
	good := saved(t, c.Dir)
	newer := filepath.Join(t.TempDir(), "newer")
	if _, err := backup.Restore(t.Context(), bytes.NewReader(remade(t, good, "nothing", nil)), newer); err != nil {
		t.Fatalf("as it was: %v", err)
	}
	damage.SQL(t, newer, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`)
	damage.SQL(t, newer, `PRAGMA wal_checkpoint(TRUNCATE)`)
	future, err := os.ReadFile(filepath.Join(newer, "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		file    string
		content []byte
		want    string
	}{
		"no configuration":  {"pki.yaml", nil, "the file is empty"},
		"a bad one":         {"pki.yaml", []byte("colour: blue\n"), `unknown key "colour"`},
		"no trust":          {"certs/current.json", nil, "reading trust"},
		"no record at all":  {"pki.db", []byte("this is not a database, it only looks long enough to be one"), "inspecting the record"},
		"without one":       {"pki.db", nil, "inspecting the record"},
		"a newer record":    {"pki.db", future, "schema version 99999"},
		"an empty manifest": {"manifest.json", []byte(`{}`), "version 0"},
	} {
		t.Run(name, func(t *testing.T) {
			data := remade(t, good, tc.file, tc.content)
			if tc.file == "manifest.json" {
				data = repack(t, good, func(h *tar.Header, b []byte) []byte {
					if h.Name == tc.file {
						return tc.content
					}
					return b
				})
			}
			dir := filepath.Join(t.TempDir(), "new")
			if _, err := backup.Restore(t.Context(), bytes.NewReader(data), dir); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Error("something was left behind")
			}
		})
	}
}

// failing fails after some bytes, as a full disk does.
type failing struct{ left int }

var errFull = errors.New("no space left")

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestBackupFails(t *testing.T) {
	c := catest.Start(t, catest.Options{})
	for _, room := range []int{0, 600, 20_000, 200_000} {
		if _, err := backup.Write(t.Context(), &failing{room}, backup.Options{Dir: c.Dir, Encrypted: true}); !errors.Is(err, errFull) {
			t.Errorf("room for %d bytes: %v", room, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := backup.Write(ctx, io.Discard, backup.Options{Dir: c.Dir, Encrypted: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := backup.Restore(ctx, bytes.NewReader(saved(t, c.Dir)), filepath.Join(t.TempDir(), "new")); !errors.Is(err, context.Canceled) {
		t.Errorf("restore, cancelled: %v", err)
	}
	if left := temporary(t, c.Dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if err := os.Remove(filepath.Join(c.Dir, "certs", "current.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Write(t.Context(), io.Discard, backup.Options{Dir: c.Dir, Encrypted: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without trust: %v", err)
	}
}
