//go:build unix

package unixsocket

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func listenAt(t *testing.T, path string) (net.Listener, error) {
	t.Helper()
	return listenAs(t, Socket{Path: path})
}

func listenAs(t *testing.T, s Socket) (net.Listener, error) {
	t.Helper()
	ln, err := Listen(t.Context(), s)
	if err == nil {
		t.Cleanup(func() { _ = ln.Close() })
	}
	return ln, err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plain listens as a program without our lock does, and leaves the socket behind.
func plain(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	ln.SetUnlinkOnClose(false)
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// A socket that is served is not taken, nor anything that is no socket; what a
// killed process left is replaced.
func TestWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		put  func(t *testing.T, path string)
		want string // in the error; "" is success
	}{
		"nothing":        {func(*testing.T, string) {}, ""},
		"a dead socket":  {func(t *testing.T, path string) { must(t, plain(t, path).Close()) }, ""},
		"an old lock":    {func(t *testing.T, path string) { must(t, os.WriteFile(path+lockSuffix, nil, 0o600)) }, ""},
		"a live socket":  {func(t *testing.T, path string) { plain(t, path) }, ErrBusy.Error()},
		"one of our own": {func(t *testing.T, path string) { _, err := listenAt(t, path); must(t, err) }, ErrBusy.Error()},
		"a file":         {func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("x"), 0o600)) }, "something else than a socket"},
		"a directory":    {func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, "something else than a socket"},
		"a FIFO":         {func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) }, "something else than a socket"},
		"a link to one": {func(t *testing.T, path string) {
			must(t, plain(t, path+"2").Close())
			must(t, os.Symlink(path+"2", path))
		}, "something else than a socket"},
		"a dangling link": {func(t *testing.T, path string) { must(t, os.Symlink("absent", path)) }, "something else than a socket"},
		"a link as lock":  {func(t *testing.T, path string) { must(t, os.Symlink(path+"2", path+lockSuffix)) }, "symbolic links"},
		"a FIFO as lock":  {func(t *testing.T, path string) { must(t, syscall.Mkfifo(path+lockSuffix, 0o600)) }, "not a regular file"},
		"no directory":    {func(t *testing.T, path string) { must(t, os.Remove(filepath.Dir(path))) }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "d", "s")
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			c.put(t, path)
			before, _ := os.Lstat(path)
			_, err := listenAt(t, path)
			if c.want == "" {
				must(t, err)
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if after, _ := os.Lstat(path); before != nil && !os.SameFile(before, after) {
				t.Error("what was there is gone")
			}
		})
	}
}

// A path that begins with @ is a file like any other, not a name without one.
func TestNoAbstractSocket(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := listenAt(t, "@token")
	must(t, err)
	if _, err := os.Lstat("@token"); err != nil {
		t.Error(err)
	}
	if _, err := listenAt(t, strings.Repeat("a", 120)); err == nil || !strings.Contains(err.Error(), "a socket's can have 103") {
		t.Errorf("a path that is too long: %v", err)
	}
}

// The mode is right from the moment the socket has a name, whatever the umask is.
func TestModeHoldsFromTheBegin(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // no test of this package runs beside it: it is not parallel
	path := filepath.Join(t.TempDir(), "s")
	lc := net.ListenConfig{Control: restrict}
	ln, err := lc.Listen(t.Context(), "unix", path) // as Listen does, before it has set anything
	must(t, err)
	wantMode(t, path, 0o600)
	must(t, ln.Close())
	_, err = listenAt(t, path)
	must(t, err)
	wantMode(t, path, 0o600)
	wantMode(t, path+lockSuffix, 0o600)
	gid := os.Getegid()
	if os.Geteuid() == 0 {
		gid = 12345
	}
	ln, err = Listen(t.Context(), Socket{Path: path + "2", Group: gid})
	must(t, err)
	defer func() { _ = ln.Close() }()
	wantMode(t, path+"2", 0o660)
	_, err = listenAs(t, Socket{Path: path + "3", Everyone: true})
	must(t, err)
	wantMode(t, path+"3", 0o666)
	info, err := os.Lstat(path + "2")
	must(t, err)
	if st := info.Sys().(*syscall.Stat_t); int(st.Gid) != gid {
		t.Errorf("group %d, want %d", st.Gid, gid)
	}
}

// TestRegroup: a socket gets the mode of another Socket while it is served, and what fails changes nothing.
func TestRegroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := listenAs(t, Socket{Path: path, Everyone: true})
	must(t, err)
	gid := os.Getegid()
	if os.Geteuid() == 0 {
		gid = 12345
	}
	must(t, Regroup(ln, Socket{Group: gid}))
	wantMode(t, path, 0o660)
	must(t, Regroup(ln, Socket{Everyone: true}))
	wantMode(t, path, 0o666)
	must(t, Regroup(ln, Socket{}))
	wantMode(t, path, 0o600)
	must(t, os.Remove(path))
	if err := Regroup(ln, Socket{Group: gid}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "changing who may connect to "+path) {
		t.Errorf("a socket that was removed: %v", err)
	}
	plain, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	must(t, err)
	defer func() { _ = plain.Close() }()
	if err := Regroup(plain, Socket{}); err == nil {
		t.Error("a socket of others was changed")
	}
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	if info.Mode().Perm() != want {
		t.Errorf("%s has mode %04o, want %04o", filepath.Base(path), info.Mode().Perm(), want)
	}
}

// The end removes socket and lock, and not what took the place of the socket.
func TestRemovedAtTheEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := listenAt(t, path)
	must(t, err)
	must(t, ln.Close())
	for _, path := range []string{path, path + lockSuffix} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	ln, err = listenAt(t, path)
	must(t, err)
	must(t, os.Remove(path+lockSuffix))
	must(t, os.Remove(path))
	plain(t, path)
	must(t, ln.Close())
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket of another program is gone: %v", err)
	}
}

// One name has one server, however many begin at the same time and end again.
func TestOneServerForAName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	type made struct {
		ln  net.Listener
		err error
	}
	for range 20 {
		results := make(chan made)
		const rivals = 4
		for range rivals {
			go func() {
				ln, err := Listen(context.Background(), Socket{Path: path})
				results <- made{ln, err}
			}()
		}
		var won []net.Listener
		for range rivals {
			switch r := <-results; {
			case r.err == nil:
				won = append(won, r.ln)
			case !errors.Is(r.err, ErrBusy):
				t.Error(r.err)
			}
		}
		if len(won) != 1 {
			t.Fatalf("%d of %d have the socket", len(won), rivals)
		}
		must(t, won[0].Close())
	}
}
