package spool_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
)

// refused checks that there is no way in.
func (b *fixture) refused(want string) {
	b.Helper()
	for what, open := range b.ways() {
		if err := open(); err == nil || !strings.Contains(err.Error(), want) {
			b.Errorf("%s: %v, want %q", what, err, want)
		}
	}
}

// Move gives the spooled directory another path.
func (b *fixture) move(to string) {
	b.Helper()
	b.must(os.Rename(b.dir, to))
	b.dir, b.cfg.Dir = to, to
}

// The state is where the operator says. Nothing is made in the spooled directory
// then, and everything works as with the usual place.
func TestStateDirectoryElsewhere(t *testing.T) {
	for _, onSuccess := range []spool.SourceAction{spool.DeleteSource, spool.MoveSource, spool.KeepSource} {
		t.Run(string(onSuccess), func(t *testing.T) {
			b := newFixture(t, ingesttest.Options{})
			state := filepath.Join(t.TempDir(), "state")
			b.cfg.StateDir, b.cfg.Recursive, b.cfg.OnSuccess = state, true, onSuccess
			b.write("sub/a.txt", "one")
			b.run()
			b.run()
			b.check([]string{"a.txt"}, 0, 0, 0, 0)
			if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("the state: %v, %v", info, err)
			}
			if _, err := os.Lstat(filepath.Join(b.dir, spool.StateDir)); !os.IsNotExist(err) {
				t.Errorf("in the spooled directory: %v", err)
			}
			_, kept := os.Lstat(filepath.Join(b.dir, "sub/a.txt"))
			_, done := os.Lstat(filepath.Join(state, "done/sub/a.txt"))
			if (kept == nil) != (onSuccess == spool.KeepSource) || (done == nil) != (onSuccess == spool.MoveSource) {
				t.Errorf("kept: %v, done: %v", kept, done)
			}
		})
	}
}

// Each directory has a state of its own: what another one claimed would come back
// to the wrong place. One that was moved is the same directory, and so is one
// that was made anew.
func TestStateOfAnotherDirectoryIsRefused(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	b.cfg.StateDir = filepath.Join(t.TempDir(), "state")
	first := b.dir
	b.write("a.txt", "one")
	b.run()
	b.dir = t.TempDir()
	b.cfg.Dir = b.dir
	b.write("b.txt", "two")
	b.refused("is the state of " + first)
	if sent := b.stack.Files(); len(sent) != 1 {
		t.Errorf("sent: %v", sent)
	}
}

func TestStateOfADirectoryThatWasMoved(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	parent := t.TempDir()
	b.move(filepath.Join(parent, "first"))
	b.cfg.StateDir = filepath.Join(parent, "state")
	b.run()
	b.move(filepath.Join(parent, "second"))
	b.run()
	b.must(os.Rename(b.dir, filepath.Join(parent, "old")))
	b.must(os.Mkdir(b.dir, 0o700)) // another inode at the path that is known
	b.run()
	b.move(filepath.Join(parent, "third"))
	b.run()
	b.must(os.Rename(b.dir, b.dir+".old"))
	b.must(os.Rename(filepath.Join(parent, "old"), b.dir))
	b.run()
	b.must(os.RemoveAll(b.dir + ".old"))

	// The state in its usual place goes where its directory goes, as a copy too.
	b.cfg.StateDir = ""
	b.run()
	copied := filepath.Join(parent, "copy")
	b.must(os.CopyFS(copied, os.DirFS(b.dir)))
	for _, d := range []string{".", "claimed", "done", "failed", "ambiguous"} {
		b.must(os.Chmod(filepath.Join(copied, spool.StateDir, d), 0o700)) // a copy has the modes of the umask
	}
	for _, f := range []string{"journal", "lock", "state.json", "directory.json"} {
		b.must(os.Chmod(filepath.Join(copied, spool.StateDir, f), 0o600))
	}
	b.dir, b.cfg.Dir = copied, copied
	b.run()
}

func TestStateDirectoryWithinTheOther(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	for _, state := range []string{b.dir, filepath.Join(b.dir, "state"), filepath.Join(b.dir, ".state"), filepath.Dir(b.dir)} {
		b.cfg.StateDir = state
		b.refused("are within each other")
	}
	b.cfg.StateDir = filepath.Join(b.dir, "absent", "state")
	b.refused("the state directory: ")
	b.cfg.StateDir = filepath.Join(b.dir, spool.StateDir)
	b.run()
}
