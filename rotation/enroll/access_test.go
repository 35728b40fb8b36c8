//go:build unix

package enroll_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// access returns owner, group and mode of the files of the current generation, and of
// the directories.
func access(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"", "current", "tls.key", "tls.crt", "ca.crt"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%s %04o %d:%d\n", name, info.Mode().Perm(), st.Uid, st.Gid)
	}
	return b.String()
}

// open gives a group access to the files, and the files to another user if this is root.
func open(t *testing.T, dir string) {
	t.Helper()
	for name, mode := range map[string]fs.FileMode{"": 0o750, "current": 0o750, "tls.key": 0o640, "tls.crt": 0o640, "ca.crt": 0o444} {
		path := filepath.Join(dir, name)
		if os.Geteuid() == 0 {
			if err := os.Chown(path, 1600, 1601); err != nil {
				t.Fatal(err)
			}
		}
		if name == "ca.crt" {
			mode = 0o644
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRenewalKeepsWhatItFinds expects that key type, owner, group and mode do not change
// in three renewals by a service and three by calls.
func TestRenewalKeepsWhatItFinds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		w.cfg.KeyType = "EC-P384"
		if _, err := enroll.Issue(t.Context(), w.cfg); err != nil {
			t.Fatal(err)
		}
		open(t, w.cfg.Dir)
		want := access(t, w.cfg.Dir)
		w.cfg.KeyType = ""
		kept := func(after string) {
			t.Helper()
			if got := access(t, w.cfg.Dir); got != want {
				t.Errorf("after %s:\n%swant\n%s", after, got, want)
			}
			if k := enroll.KeyTypeOf(readDir(t, w.cfg.Dir).Certificate.PrivateKey); k != "EC-P384" {
				t.Errorf("after %s the key is of type %s", after, k)
			}
		}
		for range 3 {
			if _, err := enroll.Renew(t.Context(), w.cfg); err != nil {
				t.Fatal(err)
			}
			kept("a call")
		}
		stop := w.watch(w.source())
		time.Sleep(2*time.Hour + 10*time.Minute)
		stop()
		if n := len(w.leaves()); n < 4 {
			t.Fatalf("%d certificates", n)
		}
		kept("a service")
	})
}

// TestRenewalClosesWhatIsTooOpen expects that a renewal does not keep a mode that
// permits too much.
func TestRenewalClosesWhatIsTooOpen(t *testing.T) {
	dir := t.TempDir()
	if err := enroll.WriteFiles(dir, material(t, "x")); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"tls.key": 0o644, "ca.crt": 0o666, "current": 0o777} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := enroll.WriteFiles(dir, material(t, "x")); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"tls.key": 0o600, "ca.crt": 0o644, "current": 0o700} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
}

// TestOneWriter expects that every second writer is refused with the process of the
// first one, and spends no token.
func TestOneWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		busy := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, enroll.ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("process %d on ", os.Getpid())) || !strings.Contains(err.Error(), w.cfg.Dir) {
				t.Errorf("%s: %v", what, err)
			}
		}
		busy("a second service", w.source().Watch(t.Context(), func(rotation.Material) error { return errors.New("yielded") }))
		_, err := enroll.Renew(t.Context(), w.cfg)
		busy("renew", err)
		_, _, err = enroll.RenewIfDue(t.Context(), w.cfg)
		busy("renew if due", err)
		_, err = enroll.Issue(t.Context(), w.cfg)
		busy("issue", err)
		busy("files", enroll.WriteFiles(w.cfg.Dir, w.last()))
		stop()
		if _, renewed, err := enroll.RenewIfDue(t.Context(), w.cfg); err != nil || renewed {
			t.Errorf("not due, after the first one ended: %v, %v", renewed, err)
		}
		time.Sleep(45 * time.Minute)
		if _, renewed, err := enroll.RenewIfDue(t.Context(), w.cfg); err != nil || !renewed {
			t.Errorf("due: %v, %v", renewed, err)
		}
	})
}

// TestIfDueRefreshesLists expects that RenewIfDue leaves a certificate that is not due alone,
// fetches no lists while those that are stored are in the first half of their validity, replaces
// them in the second, and keeps them if that fails.
func TestIfDueRefreshesLists(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 30*24*time.Hour)
		first, err := enroll.Issue(t.Context(), w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		stored := func() string {
			t.Helper()
			text, err := os.ReadFile(filepath.Join(w.cfg.Dir, "crl.pem"))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		run := func() rotation.Material {
			t.Helper()
			m, renewed, err := enroll.RenewIfDue(t.Context(), w.cfg)
			if err != nil || renewed || !m.Certificate.Leaf.Equal(first.Certificate.Leaf) {
				t.Errorf("renewed %v, %v", renewed, err)
			}
			return m
		}
		before, fetched := stored(), w.ca.count(stepapi.PathRevoked)
		w.ca.revoke(first.Certificate.Leaf) // any will do
		time.Sleep(11 * time.Hour)
		run()
		if stored() != before || w.ca.count(stepapi.PathRevoked) != fetched {
			t.Error("lists were fetched in the first half of their validity")
		}
		time.Sleep(2 * time.Hour)
		w.ca.setFault(func(*http.Request) *stepapi.Error { return &stepapi.Error{Status: http.StatusServiceUnavailable} })
		if run(); stored() != before || !strings.Contains(w.log.String(), `level=WARN msg="revoked lists not refreshed"`) {
			t.Errorf("a failure: log %s", w.log.String())
		}
		w.ca.setFault(nil)
		if m := run(); stored() == before || !isRevoked(m, first.Certificate.Leaf) {
			t.Error("not refreshed")
		}
		if pair := readDir(t, w.cfg.Dir).Certificate; !pair.Leaf.Equal(first.Certificate.Leaf) {
			t.Error("another certificate is stored")
		}
	})
}

// TestLockIsNoLink expects that a link in the place of the lock file is not followed,
// because its target would be truncated.
func TestLockIsNoLink(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("text"), 0o600), os.Symlink(victim, filepath.Join(dir, ".lock"))); err != nil {
		t.Fatal(err)
	}
	if err := enroll.WriteFiles(dir, material(t, "x")); err == nil {
		t.Error("the link was accepted")
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestNothingStoredAndNoToken expects an error that says that a token is missing, and
// not that a file is.
func TestNothingStoredAndNoToken(t *testing.T) {
	src, err := enroll.New(enroll.Config{URL: "https://ca.test", Dir: filepath.Join(t.TempDir(), "d")})
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Watch(t.Context(), func(rotation.Material) error { return nil }); !errors.Is(err, enroll.ErrNoToken) || strings.Contains(err.Error(), "tls.crt") {
		t.Errorf("%v", err)
	}
}
