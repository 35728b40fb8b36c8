package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
	"github.com/artstore/artstore-pki/ingestclient/spool/status"
)

// names lists all below dir, in order.
func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			out = append(out, path[len(dir)+1:])
		}
		return err
	}))
	return out
}

// TestStepsStayInTheStateThatWasOpened expects that each step works in the state that
// was opened, although another user has put another one in its place.
func TestStepsStayInTheStateThatWasOpened(t *testing.T) {
	s := bare(t, MoveSource)
	l := s.layout
	must(t, l.checkUnmoved())
	back := s.testClaim(t, "back")
	must(t, l.unclaim(back.id, back.name))
	state, away := filepath.Join(l.dir, StateDir), filepath.Join(t.TempDir(), "away")
	must(t, os.Rename(state, away))
	for _, d := range []string{claimedDir, doneDir, string(quarantineFailed), string(quarantineAmbiguous)} {
		must(t, os.MkdirAll(filepath.Join(state, d), 0o777))
	}
	theirs := names(t, state)

	stored := s.testClaim(t, "stored")
	stored.stored = stored.newRecord(journal.OpStored)
	must(t, l.syncClaim(stored.id, stored.name))
	if out := s.deliver(t.Context(), stored); out.err != nil {
		t.Error(out.err)
	}
	refused := s.testClaim(t, "refused")
	if out := s.quarantineItem(refused, errOther, quarantineFailed); out.outcome != outcomeRefused {
		t.Error(out.err)
	}
	back = s.testClaim(t, "given back")
	must(t, l.unclaim(back.id, back.name))
	must(t, s.journal.Start()) // writes it anew
	s.storeSnapshot(status.Snapshot{State: "running"}, true)

	if now := names(t, state); !slices.Equal(now, theirs) {
		t.Errorf("in the other state: %q", now)
	}
	for _, want := range []string{filepath.Join(doneDir, "a"), filepath.Join(string(quarantineFailed), refused.id, contentDir, "a"), journal.FileName, snapshotName} {
		if _, err := os.Lstat(filepath.Join(away, want)); err != nil {
			t.Error(err)
		}
	}
	if err := l.checkUnmoved(); err == nil {
		t.Error("it is not noticed")
	}
}

// TestSourcesBehindLinksAreNotTouched expects that a directory of sources that becomes a
// link leads no step out of the spooled directory, nor into the state.
func TestSourcesBehindLinksAreNotTouched(t *testing.T) {
	for _, keep := range []bool{false, true} {
		l := testLayout(t)
		l.keep = keep
		outside := t.TempDir()
		sub := filepath.Join(l.dir, "sub")
		for _, target := range []string{outside, filepath.Join(StateDir, string(quarantineFailed)), "real"} {
			to := target
			if !filepath.IsAbs(to) {
				to = filepath.Join(l.dir, to)
			}
			must(t, os.MkdirAll(to, 0o700))
			path := filepath.Join(to, "a")
			must(t, os.WriteFile(path, []byte("victim"), 0o600))
			info, err := os.Lstat(path)
			must(t, err)
			must(t, os.Symlink(target, sub))
			name := filepath.Join("sub", "a")
			if err := l.claimFile("x", name, fileat.IDOf(info)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: taken: %v", target, err)
			}
			must(t, l.state.MkdirAll(filepath.Dir(contentPath("y", name)), 0o700))
			must(t, os.Link(path, l.path(contentPath("y", name))))
			if l.exists(name) || l.isSource(name, contentPath("y", name)) {
				t.Errorf("%s: it is found through the link", target)
			}
			must(t, l.syncClaim("y", name))
			must(t, os.Remove(path))
			if err := l.unclaim("y", name); !keep && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: given back: %v", target, err)
			}
			if left := names(t, to); len(left) != 0 {
				t.Errorf("%s: %q came through the link", target, left)
			}
			must(t, l.removeClaim("y"))
			must(t, os.Remove(sub))
		}
	}
	if _, err := fileat.At(testLayout(t).sources, "../a"); err == nil {
		t.Error("a name leads out of the directory")
	}
}
