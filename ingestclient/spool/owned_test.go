package spool_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
)

const stranger = 65534

// tree lists what is at path and below, with what can be changed of it.
func tree(t *testing.T, path string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		content := ""
		if err == nil && info.Mode().IsRegular() {
			var raw []byte
			raw, err = os.ReadFile(at)
			content = string(raw)
		}
		out = append(out, fmt.Sprintf("%s %s %d %q", strings.TrimPrefix(at, path), info.Mode(), info.Sys().(*syscall.Stat_t).Uid, content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const asideID = "99999999-2222-4333-8444-555555555555"

// TestStateOfSomebodyElseIsRefused uses a state that another user has made or changed.
// The start is refused with the reason. Nothing is read, sent or removed, and nothing
// blocks.
func TestStateOfSomebodyElseIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	b := newFixture(t, ingesttest.Options{})
	claim, put := filepath.Join("claimed", claimID), filepath.Join("ambiguous", asideID)
	run, resolve := "Open ReadStatus", "Resolve ReadStatus"
	for place, by := range map[string]string{
		".": run + resolve, "journal": run + resolve, "lock": run + resolve, "state.json": run + resolve, "directory.json": run + resolve,
		"claimed": run + resolve, claim: run, filepath.Join(claim, "file"): run,
		"ambiguous": run + resolve, put: resolve, filepath.Join(put, "file"): resolve, filepath.Join(put, "reason.json"): resolve,
	} {
		for fault, want := range map[string]string{
			"link": "is not a ", "link inside": "is not a ", "FIFO": "is not a ", "another owner": "belongs to user 65534", "mode 0777": "has mode 0777",
		} {
			t.Run(place+" "+fault, func(t *testing.T) {
				if fault == "another owner" && os.Geteuid() != 0 {
					t.Skip("only root can give files away; the tests of this row run as root in CI")
				}
				b := b.with(t)
				b.run() // makes the state
				b.write("waits.txt", "two")
				b.claimed("one", rec("intent"))
				b.write(filepath.Join(spool.StateDir, put, "file", "b.txt"), "three")
				b.write(filepath.Join(spool.StateDir, put, "reason.json"), `{"state":"ambiguous","on_success":"delete"}`)
				outside := t.TempDir()
				path := filepath.Join(b.dir, spool.StateDir, place)
				damage(b, path, outside, fault)
				was := slices.Concat(tree(t, b.dir), tree(t, outside))
				for what, open := range b.ways() {
					if !strings.Contains(by, what) {
						continue
					}
					done := make(chan error, 1)
					go func() { done <- open() }()
					select {
					case err := <-done:
						if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
							t.Errorf("%s: %v, want %q of %s", what, err, want, path)
						}
					case <-time.After(time.Minute):
						t.Fatalf("%s hangs", what)
					}
				}
				if now := slices.Concat(tree(t, b.dir), tree(t, outside)); !slices.Equal(now, was) {
					t.Errorf("changed from\n%s\nto\n%s", strings.Join(was, "\n"), strings.Join(now, "\n"))
				}
				if sent := b.stack.Files(); len(sent) != 0 {
					t.Errorf("sent: %v", sent)
				}
			})
		}
	}
}

// ways are the ways into a state.
func (b *fixture) ways() map[string]func() error {
	return map[string]func() error{
		"Open": func() error {
			s, err := spool.Open(b.cfg)
			if err == nil {
				_ = s.Close()
			}
			return err
		},
		"ReadStatus": func() error {
			_, err := spool.ReadStatus(b.Context(), b.cfg)
			return err
		},
		"Resolve": func() error {
			_, err := spool.Resolve(b.Context(), spool.ResolveConfig{Dir: b.dir, StateDir: b.cfg.StateDir, Decision: spool.DecideStored, Apply: true})
			return err
		},
	}
}

// TestOpenDirectoryIsWarnedOf expects a warning for a directory in which other users can
// rename.
func TestOpenDirectoryIsWarnedOf(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	for mode, warned := range map[fs.FileMode]bool{0o755: false, 0o777: true, 0o777 | fs.ModeSticky: false} {
		b.must(os.Chmod(b.dir, mode))
		var out bytes.Buffer
		b.cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
		b.run()
		if got := strings.Contains(out.String(), "level=WARN msg=\"others can take the state away"); got != warned {
			t.Errorf("mode %v: warned %v: %s", mode, got, &out)
		}
	}
	b.must(os.Chmod(b.dir, 0o777))
	b.cfg.StateDir = filepath.Join(t.TempDir(), "state")
	var out bytes.Buffer
	b.cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
	if b.run(); out.Len() > 0 {
		t.Errorf("the state is elsewhere: %s", &out)
	}
}

// with is b for another directory.
func (b *fixture) with(t *testing.T) *fixture {
	cfg := b.cfg
	cfg.Dir, cfg.Observer = t.TempDir(), nil
	return &fixture{T: t, dir: cfg.Dir, stack: b.stack, client: b.client, cfg: cfg}
}

// damage leaves at path what others could have made there. Links lead to what
// was there, so that only the link is wrong.
func damage(b *fixture, path, outside, fault string) {
	b.Helper()
	switch fault {
	case "another owner":
		b.must(os.Chown(path, stranger, stranger))
	case "mode 0777":
		b.must(os.Chmod(path, 0o777))
	case "FIFO":
		b.must(os.Rename(path, filepath.Join(outside, "moved")))
		b.must(syscall.Mkfifo(path, 0o600))
	case "link":
		b.must(os.Rename(path, filepath.Join(outside, "moved")))
		b.must(os.Symlink(filepath.Join(outside, "moved"), path))
	case "link inside":
		b.must(os.Rename(path, path+".moved"))
		b.must(os.Symlink(filepath.Base(path)+".moved", path))
	}
}
