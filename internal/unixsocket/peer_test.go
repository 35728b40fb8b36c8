//go:build linux

package unixsocket

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A process is the one that this test starts; one of another user needs root.
func TestPeerOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := listenAt(t, path)
	must(t, err)
	c, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
	must(t, err)
	defer func() { _ = c.Close() }()
	accepted, err := ln.Accept()
	must(t, err)
	got, err := PeerOf(accepted)
	must(t, err)
	if want := (Peer{uint32(os.Geteuid()), uint32(os.Getegid()), int32(os.Getpid())}); got != want {
		t.Errorf("peer %+v, want %+v", got, want)
	}
	must(t, accepted.Close())
	if _, err := PeerOf(accepted); !errors.Is(err, net.ErrClosed) {
		t.Errorf("of a closed connection: %v", err)
	}
}

func TestPeerOfWhatIsNoUnixSocket(t *testing.T) {
	here, there := net.Pipe()
	defer func() { _, _ = here.Close(), there.Close() }()
	if _, err := PeerOf(here); err == nil || !strings.Contains(err.Error(), "no file descriptor") {
		t.Errorf("of a pipe: %v", err)
	}
	packets, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixgram"})
	must(t, err)
	defer func() { _ = packets.Close() }()
	if p, err := PeerOf(packets); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("of a socket without a peer: %+v, %v", p, err)
	}
}

// A guarded path is refused if another user can put a socket of his own there, or replace a
// directory above it. The directory above that of the path may have the sticky bit: nobody can
// rename there what belongs to others.
func TestGuarded(t *testing.T) {
	for name, c := range map[string]struct {
		mode fs.FileMode
		want string
	}{
		"closed":              {0o755, ""},
		"with the sticky bit": {0o777 | fs.ModeSticky, "has mode 0777, want 0755"}, // each user can be the first there
		"open to the group":   {0o775, "has mode 0775, want 0755"},
		"open to all":         {0o777, "has mode 0777, want 0755"},
	} {
		t.Run(name, func(t *testing.T) {
			above := t.TempDir()
			must(t, os.Chmod(above, 0o777|fs.ModeSticky))
			dir := filepath.Join(above, "d")
			must(t, os.Mkdir(dir, 0o700))
			if os.Geteuid() == 0 {
				must(t, os.Chown(dir, -1, 12345)) // group 0 has root only
			}
			must(t, os.Chmod(dir, c.mode))
			_, err := listenAs(t, Socket{Path: filepath.Join(dir, "s"), Guarded: true})
			if c.want == "" {
				must(t, err)
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if _, err := os.Lstat(filepath.Join(dir, "s.lock")); !errors.Is(err, fs.ErrNotExist) {
				t.Error("a lock was made where others can replace it")
			}
			must(t, os.Chmod(dir, 0o755))
			must(t, os.Chmod(above, 0o777))
			if _, err := listenAs(t, Socket{Path: filepath.Join(dir, "s"), Guarded: true}); err == nil || !strings.Contains(err.Error(), above+" has mode 0777, want 0755: others can replace") {
				t.Errorf("below a directory of everyone: %v", err)
			}
		})
	}
}
