package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
)

// asUser does something with the rights of an ordinary user on files.
func asUser(t *testing.T, uid int, do func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its rights
		if err := syscall.Setfsuid(uid); err != nil {
			done <- err
			return
		}
		do()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// In a drop box the files belong to others. Linux gives them no second name, and
// all steps that need none work.
func TestFilesOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away; the tests run as root in CI")
	}
	if raw, err := os.ReadFile("/proc/sys/fs/protected_hardlinks"); err != nil || strings.TrimSpace(string(raw)) != "1" {
		t.Skipf("hard links are not protected here: %s, %v", raw, err)
	}
	const us, others = 65534, 1600
	l := testLayout(t)
	must(t, filepath.WalkDir(filepath.Dir(l.dir), func(path string, d fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, us, us))
	}))
	write := func(name string) fileat.ID {
		path := filepath.Join(l.dir, name)
		must(t, os.WriteFile(path, []byte(name), 0o644))
		must(t, os.Chown(path, others, others))
		info, err := os.Lstat(path)
		must(t, err)
		return fileat.IDOf(info)
	}
	content := func(path string) string {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return string(raw)
	}
	back, kept := write("back"), write("kept")
	asUser(t, us, func() {
		for _, err := range []error{l.claimFile("1", "back", back), l.unclaim("1", "back"), l.claimFile("1", "back", back)} {
			if err != nil {
				t.Error(err)
			}
		}
		kind := l
		kind.keep = true
		if err := kind.claimFile("2", "kept", kept); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "protected_hardlinks") {
			t.Errorf("kept: %v", err)
		}
	})
	write("back") // a namesake
	asUser(t, us, func() {
		if err := l.unclaim("1", "back"); !errors.Is(err, fs.ErrExist) {
			t.Errorf("over a namesake: %v", err)
		}
	})
	for _, want := range []string{"done/stored", "done/stored~4"} {
		id := map[string]string{"done/stored": "3", "done/stored~4": "4"}[want]
		seen := write("stored")
		asUser(t, us, func() {
			if err := l.claimFile(id, "stored", seen); err != nil {
				t.Error(err)
			}
			if err := l.moveTo(contentPath(id, "stored"), doneDir+"/moved"); err != nil { // and then came an error
				t.Error(err)
			}
			if err := l.moveTo(doneDir+"/moved", contentPath(id, "stored")); err != nil {
				t.Error(err)
			}
			if err := l.archive(id, "stored"); err != nil {
				t.Error(err)
			}
			if err := l.archive(id, "stored"); err != nil {
				t.Errorf("again: %v", err)
			}
		})
		if got := content(l.path(want)); got != "stored" {
			t.Errorf("%s: %q", want, got)
		}
	}
	if got := content(l.path(contentPath("1", "back"))); got != "back" {
		t.Errorf("claimed: %q", got)
	}
}
