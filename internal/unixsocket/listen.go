package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/flock"
)

// maxPath is the longest path of a socket that all Unix systems accept, in bytes.
const maxPath = 103

// lockSuffix is the end of the name of the file whose lock the server of a socket holds.
const lockSuffix = ".lock"

const (
	ownerOnly fs.FileMode = 0o600
	withGroup fs.FileMode = 0o660
	anybody   fs.FileMode = 0o666
)

// ErrBusy reports a socket that a running process serves.
var ErrBusy = errors.New("another process serves this socket")

// Socket says where to listen and who may connect.
type Socket struct {
	Path string
	// Group is the id of a group whose members may connect too: the mode is 0660 then, and
	// 0600 otherwise. 0 means none, because root needs no permission.
	Group int
	// Everyone lets each user connect: the mode is 0666, whatever Group is. It is for servers
	// that ask the kernel who has connected (see [PeerOf]).
	Everyone bool
	// Guarded refuses a path at which another user than this one and root can make or replace a
	// socket, because clients believe what the server at this path says.
	Guarded bool
}

// Listen makes the socket. The directory of the path must exist. A socket that a
// killed process left is replaced; [ErrBusy] reports one that is served.
func Listen(ctx context.Context, s Socket) (net.Listener, error) {
	ln, err := s.listen(ctx)
	if err != nil {
		return nil, fmt.Errorf("making the socket %s: %w", s.Path, err)
	}
	return ln, nil
}

func (s Socket) listen(ctx context.Context) (_ net.Listener, err error) {
	// A relative path could begin with @, which means a socket without a file, to which each user may connect.
	path, err := filepath.Abs(s.Path)
	switch {
	case err != nil:
		return nil, err
	case len(path) > maxPath:
		return nil, fmt.Errorf("the path has %d bytes, and a socket's can have %d", len(path), maxPath)
	}
	if s.Guarded {
		if err := guarded(path); err != nil {
			return nil, err
		}
	}
	lock, err := takeLock(path + lockSuffix)
	if err != nil {
		return nil, err
	}
	l := &listener{path: path, lock: lock}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	// This process has the lock, so no other server of the socket runs these steps meanwhile.
	if err := clearPath(ctx, path); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: restrict}
	if l.Listener, err = lc.Listen(ctx, "unix", path); err != nil {
		return nil, err
	}
	// Removing by name could remove the socket of another process, so Close compares first.
	l.Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if l.made, err = os.Lstat(path); err != nil {
		return nil, err
	}
	return l, s.open(path)
}

// guarded returns who else can make or replace a file at the path, as an error. The sticky bit is
// not enough for its directory: while no server runs, each user could make a socket there.
func guarded(path string) error {
	if found := append(fileperm.File(filepath.Dir(path), 0o755), fileperm.Parents(path)...); len(found) > 0 {
		return errors.New(found[0])
	}
	return nil
}

// Regroup lets those connect to a socket of [Listen] whom s has in Group and Everyone, instead of those
// for whom it was made. If it fails, nothing has changed. Connections that are open stay.
func Regroup(ln net.Listener, s Socket) error {
	l, ok := ln.(*listener)
	if !ok {
		return errors.New("changing who may connect: it is no socket of this package")
	}
	if err := s.open(l.path); err != nil {
		return fmt.Errorf("changing who may connect to %s: %w", l.path, err)
	}
	return nil
}

// open gives the socket its owner and mode, the group before the permission.
func (s Socket) open(path string) error {
	mode := ownerOnly
	switch {
	case s.Everyone:
		mode = anybody
	case s.Group != 0:
		mode = withGroup
		if err := os.Chown(path, -1, s.Group); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// clearPath removes the socket of a process that has ended. Any other file at the path stays,
// and is an error.
func clearPath(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("something else than a socket is in its place")
	}
	if uid, ok := fileperm.Owner(info); ok && uid != os.Geteuid() {
		return fmt.Errorf("the socket there belongs to user %d", uid)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close() // nothing was said
		return ErrBusy
	case !errors.Is(err, syscall.ECONNREFUSED): // only that error proves that no process listens
		return fmt.Errorf("is the socket there served? %w", err)
	}
	return os.Remove(path)
}

// listener is a socket with a name in the file system, and the lock of that name.
type listener struct {
	net.Listener
	path string
	made fs.FileInfo
	lock *os.File
	once sync.Once
	err  error
}

// Close removes the socket, if the path still has the one that was made, and releases the lock.
func (l *listener) Close() error {
	l.once.Do(func() {
		if l.Listener != nil {
			l.err = l.Listener.Close()
		}
		if now, err := os.Lstat(l.path); l.made != nil && err == nil && os.SameFile(l.made, now) {
			l.err = errors.Join(l.err, os.Remove(l.path))
		}
		// The file may have been removed already; the lock does not depend on it.
		if err := os.Remove(l.lock.Name()); !errors.Is(err, fs.ErrNotExist) {
			l.err = errors.Join(l.err, err)
		}
		l.err = errors.Join(l.err, flock.Close(l.lock))
	})
	return l.err
}

// takeLock takes the lock of the name of a socket. A server removes the file before it releases
// the lock, so a file that was opened before that is not the lock any more, and takeLock
// tries again.
func takeLock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|noFollow, ownerOnly)
		if err != nil {
			return nil, err
		}
		current, err := lockOpen(f)
		if current && err == nil {
			return f, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// lockOpen locks f, and reports whether its name still leads to it.
func lockOpen(f *os.File) (current bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s is not a regular file", f.Name())
	}
	if busy, err := flock.Try(f, false); err != nil || busy {
		return false, errors.Join(err, busyError(busy))
	}
	now, err := os.Lstat(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(info, now), err
}

func busyError(busy bool) error {
	if busy {
		return ErrBusy
	}
	return nil
}
