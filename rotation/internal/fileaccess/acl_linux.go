package fileaccess

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const (
	// accessACL is the extended attribute with the ACL of a file (acl(5)).
	accessACL = "system.posix_acl_access"
	// maxACL bounds an ACL in bytes: ext4 stores less than 4 KiB.
	maxACL = 64 << 10
)

// keepACL gives to the ACL of from, if from has one. Its entries for owner, mask and others are
// the mode of from, so it must be called only if that mode is kept.
func keepACL(in *os.Root, from, to string) error {
	acl, err := readACL(in, from)
	if acl == nil || err != nil {
		return err
	}
	return withOpen(in, to, func(path string) error { return syscall.Setxattr(path, accessACL, acl, 0) })
}

// readACL returns nil if the file has no ACL, or this process cannot learn it.
func readACL(in *os.Root, name string) (acl []byte, err error) {
	acl = make([]byte, maxACL)
	size := 0
	err = withOpen(in, name, func(path string) (err error) {
		size, err = syscall.Getxattr(path, accessACL, acl)
		return err
	})
	if errors.Is(err, syscall.ENODATA) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return acl[:size], err
}

// withOpen calls use with a path of an open file. The standard library has no call that gets the
// attributes of an open file, and by name a link could lead to another one.
func withOpen(in *os.Root, name string, use func(path string) error) error {
	f, err := in.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written through it
	return use(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}
