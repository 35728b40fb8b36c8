package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/backup"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// remade copies a backup with one file replaced, or removed if content is nil, and a
// manifest that fits, as an attacker could make it.
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

// A complete backup of something that is not an authority is refused, and leaves
// nothing behind.
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

// paxEntry returns a tar with one file and extended header records of PAX. It is made
// by hand, because the library refuses to write such records.
func paxEntry(name string, data []byte, records ...string) []byte {
	var pax bytes.Buffer
	for _, r := range records {
		n := len(r) + 3 // the length counts itself, a space and the newline
		for len(strconv.Itoa(n))+len(r)+2 != n {
			n++
		}
		fmt.Fprintf(&pax, "%d %s\n", n, r)
	}
	var out bytes.Buffer
	for _, e := range []struct {
		name string
		kind byte
		data []byte
	}{{"PaxHeaders/x", 'x', pax.Bytes()}, {name, '0', data}} {
		block := make([]byte, 512)
		copy(block, e.name)
		copy(block[100:], "0000600\x000000000\x000000000\x00")
		copy(block[124:], fmt.Sprintf("%011o\x00%011o\x00        %c", len(e.data), 0, e.kind))
		copy(block[257:], "ustar\x0000")
		sum := 0
		for _, b := range block {
			sum += int(b)
		}
		copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
		out.Write(block)
		out.Write(e.data)
		out.Write(make([]byte, (512-len(e.data)%512)%512))
	}
	return out.Bytes()
}

// TestRestoreSparse: a sparse file of a few bytes does not become a large file on the
// disk. GNU tar writes holes in three forms (PAX 0.0, 0.1 and 1.0).
func TestRestoreSparse(t *testing.T) {
	const huge = 1 << 40
	hole := fmt.Sprintf("1\n%d\n0\n", huge)
	for name, data := range map[string][]byte{
		"1.0": paxEntry("GNUSparseFile.0/pki.db", append([]byte(hole), make([]byte, 512-len(hole))...),
			"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=pki.db", fmt.Sprintf("GNU.sparse.realsize=%d", huge)),
		"0.1": paxEntry("GNUSparseFile.0/pki.db", nil, "GNU.sparse.name=pki.db", fmt.Sprintf("GNU.sparse.size=%d", huge),
			"GNU.sparse.numblocks=1", fmt.Sprintf("GNU.sparse.map=%d,0", huge)),
		"0.0": paxEntry("pki.db", nil, fmt.Sprintf("GNU.sparse.size=%d", huge), "GNU.sparse.numblocks=1",
			fmt.Sprintf("GNU.sparse.offset=%d", huge), "GNU.sparse.numbytes=0"),
	} {
		t.Run(name, func(t *testing.T) {
			in := tar.NewReader(bytes.NewReader(data))
			if h, err := in.Next(); err != nil || h.Size != huge || h.Name != "pki.db" {
				t.Fatalf("it is no sparse file: %+v %v", h, err)
			}
			dir := filepath.Join(t.TempDir(), "new")
			if _, err := backup.Restore(t.Context(), bytes.NewReader(data), dir); err == nil || !strings.Contains(err.Error(), `"pki.db" does not belong into a backup`) {
				t.Errorf("restored: %v", err)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Error("something was left behind")
			}
		})
	}
}

// TestRestoreWritesWhatCameIn: no more bytes are written than were read of the backup.
func TestRestoreWritesWhatCameIn(t *testing.T) {
	const came = 100
	dir := t.TempDir()
	if err := backup.Keep(dir, "pki.db", came, strings.NewReader(strings.Repeat("x", came))); err != nil {
		t.Errorf("as much: %v", err)
	}
	if err := backup.Keep(dir, "more.db", came, strings.NewReader(strings.Repeat("x", came+1))); err == nil || !strings.Contains(err.Error(), "more bytes than the backup") {
		t.Errorf("more: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "more.db")); err != nil || info.Size() > came {
		t.Errorf("%v %v", info, err)
	}
}

// TestRestoreMarks: the restored record says that it was restored, and from which head
// of the log.
func TestRestoreMarks(t *testing.T) {
	c := catest.Start(t, catest.Options{})
	issued(t, c)
	dir := filepath.Join(t.TempDir(), "new")
	res, err := backup.Restore(t.Context(), bytes.NewReader(saved(t, c.Dir)), dir)
	if err != nil || res.NoHead {
		t.Fatalf("%+v %v", res, err)
	}
	r, err := ca.StateDir(dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	events, err := r.Events(t.Context(), kinds.Restored, 0, 10)
	if err != nil || len(events) != 1 || events[0].Caller != "operator" || !strings.HasSuffix(events[0].Detail, "from the record of "+res.Log.String()) {
		t.Errorf("%+v %v", events, err)
	}
	// The record of another authority beside our keys is refused.
	other := catest.Start(t, catest.Options{})
	elsewhere := filepath.Join(t.TempDir(), "other")
	if _, err := backup.Restore(t.Context(), bytes.NewReader(saved(t, other.Dir)), elsewhere); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(elsewhere, "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	mixed := remade(t, saved(t, c.Dir), "pki.db", foreign)
	if _, err := backup.Restore(t.Context(), bytes.NewReader(mixed), filepath.Join(t.TempDir(), "mixed")); !errors.Is(err, translog.ErrForeign) {
		t.Errorf("a mixed backup: %v", err)
	}
}

// TestRestoreFromBeforeHeads: a backup without a head is restored, and the authority
// starts with it after the operator has accepted that.
func TestRestoreFromBeforeHeads(t *testing.T) {
	c := catest.Start(t, catest.Options{})
	whole := filepath.Join(t.TempDir(), "whole")
	if _, err := backup.Restore(t.Context(), bytes.NewReader(saved(t, c.Dir)), whole); err != nil {
		t.Fatal(err)
	}
	damage.SQL(t, whole, `INSERT INTO log_pending (event, leaf) SELECT event, leaf FROM log_entries; DELETE FROM log_entries; DELETE FROM log_state`)
	damage.SQL(t, whole, `PRAGMA wal_checkpoint(TRUNCATE)`)
	headless, err := os.ReadFile(filepath.Join(whole, "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	data := remade(t, saved(t, c.Dir), "pki.db", headless)
	for name, data := range map[string][]byte{"no head": data, "no key": remade(t, data, "certs/log.pub", nil)} {
		dir := filepath.Join(t.TempDir(), name)
		if res, err := backup.Restore(t.Context(), bytes.NewReader(data), dir); err != nil || !res.NoHead {
			t.Fatalf("%s: %+v %v", name, res, err)
		}
		if _, err := ca.Open(t.Context(), ca.Options{Dir: dir}); name == "no head" && !errors.Is(err, store.ErrNoHead) {
			t.Errorf("%s: opened: %v", name, err)
		}
		if _, err := ca.StateDir(dir).AcceptLoss(t.Context(), ca.AcceptOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		(&catest.CA{Dir: dir}).Check(t)
	}
}
