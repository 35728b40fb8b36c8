//go:build unix

package fileaccess

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/artstore/artstore-pki/internal/durable"
)

// OpenLock opens the lock file at path for reading and writing, and makes it (0600) if it is
// absent. It does not follow a link, because the file is truncated and written.
func OpenLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
}

// CanWrite reports whether this user may make files in a directory.
func CanWrite(dir string) bool {
	const w = 2 // W_OK of access(2)
	return syscall.Access(dir, w) == nil
}

// Keep gives to owner, group, mode and ACL of from. Mode and ACL are kept only if the mode
// permits no more than most; with an ACL, the rights of the group in the mode are the most that the
// ACL gives to named users and groups. Both paths are within in, and no link leads out of it. lost reports that
// owner, group or ACL could not be set. If that is the group of a secret file, the mode gives the
// group no rights, because it would be another group.
func Keep(in *os.Root, from, to string, most fs.FileMode) (lost bool, err error) {
	was, err := in.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	is, err := in.Stat(to)
	if err != nil {
		return false, err
	}
	before, ok := was.Sys().(*syscall.Stat_t)
	now, known := is.Sys().(*syscall.Stat_t)
	mode, kept := was.Mode().Perm()|is.Mode().Perm()&0o700, true
	if mode&^(most|0o700) != 0 { // a mistake that must not last
		mode, kept = is.Mode().Perm(), false
	}
	if ok && known && (before.Uid != now.Uid || before.Gid != now.Gid) && in.Chown(to, int(before.Uid), int(before.Gid)) != nil {
		lost = true
		if before.Gid != now.Gid && in.Chown(to, -1, int(before.Gid)) != nil && most != durable.Public {
			mode, kept = mode&^0o070, false
		}
	}
	err = in.Chmod(to, mode|is.Mode()&fs.ModeSetgid)
	if err == nil && kept && keepACL(in, from, to) != nil { // no failure: without its ACL a file permits less
		lost = true
	}
	return lost, err
}
