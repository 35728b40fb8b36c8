package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
)

// onSmallDisk puts the spool on a file system of 1 MiB.
func onSmallDisk(t *testing.T) *fixture {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root; .ci/run has it in a container")
	}
	b := newFixture(t, ingesttest.Options{})
	if err := syscall.Mount("tmpfs", b.dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(b.dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b.cfg.MinFree = -1
	return b
}

// TestFullDisk expects that nothing is sent on a full disk that could not be recorded,
// and that the spool goes on by itself when there is room.
func TestFullDisk(t *testing.T) {
	b := onSmallDisk(t)
	b.write("a", "one")
	b.run() // makes the directories
	b.write("b", "two")
	ballast := filepath.Join(b.dir, ".ballast")
	fillErr := os.WriteFile(ballast, bytes.Repeat([]byte("x"), 2<<20), 0o600)
	if fillErr == nil {
		t.Fatal("the disk is not full")
	}
	b.must(os.Truncate(ballast, 1<<19))
	s, _ := b.start()
	b.until("b stored", func() bool { return len(b.stack.Files()) == 2 })
	if os.WriteFile(ballast, bytes.Repeat([]byte("x"), 2<<20), 0o600) == nil {
		t.Fatal("the disk is not full")
	}
	// A name takes no page on this file system, and the journal's last page has room for some lines.
	written := 2
	b.until("noticed", func() bool {
		if os.WriteFile(filepath.Join(b.dir, fmt.Sprint("c", written)), nil, 0o600) == nil {
			written++
		}
		return s.Snapshot().Reason == "disk"
	})
	if s.Ready() == nil {
		t.Error("ready without a disk")
	}
	b.must(os.Remove(ballast))
	b.until("all stored", func() bool { return len(b.stack.Files()) == written })
	b.until("ready again", func() bool { return s.Ready() == nil })
	b.must(s.Ready())
}

// On a read-only file system there is an error at the start; a read-only
// directory in it is trouble, and holds up nothing else.
func TestReadOnly(t *testing.T) {
	b := onSmallDisk(t)
	b.write("ro/a", "one")
	ro := filepath.Join(b.dir, "ro")
	b.must(syscall.Mount(ro, ro, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { _ = syscall.Unmount(ro, syscall.MNT_DETACH) }) // the disk below goes too
	b.must(syscall.Mount("", ro, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""))
	cfg := b.cfg
	cfg.Dir = ro
	if s, err := spool.Open(cfg); !errors.Is(err, syscall.EROFS) {
		t.Errorf("opened: %v", err)
		_ = s.Close()
	}
	b.cfg.Recursive = true
	s, _ := b.start()
	b.until("noticed", func() bool { return s.Snapshot().Reason == "directory" })
	b.write("z", "two")
	b.until("stored", func() bool { return len(b.stack.Files()) == 1 && len(b.status().Claimed) == 0 })
	b.check([]string{"z"}, 1, 0, 0, 0)
}

// A claim is one rename. Where none is possible the start says so: between file
// systems, and between two mounts of one.
func TestStateOnAnotherFileSystem(t *testing.T) {
	b := onSmallDisk(t)
	b.write("a", "one")
	bound := filepath.Join(t.TempDir(), "bound")
	b.must(os.MkdirAll(filepath.Join(b.dir, ".bound"), 0o700))
	b.must(os.Mkdir(bound, 0o700))
	b.must(syscall.Mount(filepath.Join(b.dir, ".bound"), bound, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { _ = syscall.Unmount(bound, syscall.MNT_DETACH) }) // the test's own directory
	for _, state := range []string{filepath.Join(t.TempDir(), "state"), filepath.Join(bound, "state")} {
		b.cfg.StateDir = state
		if s, err := spool.Open(b.cfg); !errors.Is(err, syscall.EXDEV) {
			t.Errorf("%s: %v", state, err)
			_ = s.Close()
		}
		if left, err := os.ReadDir(state); err != nil || len(left) != 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
	b.check(nil, 1, 0, 0, 0)
}

func TestLowDiskClaimsNothing(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	b.cfg.MinFree = 1 << 60
	s, _ := b.start()
	b.write("a", "one")
	b.until("noticed", func() bool { return s.Snapshot().Reason == "low disk" })
	if err := s.Ready(); err == nil {
		t.Error("ready on a full disk")
	}
	b.check(nil, 1, 0, 0, 0)
}
