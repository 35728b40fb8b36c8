package spool

import "golang.org/x/sys/unix"

// renameNew moves what is at p, and replaces nothing.
func (p place) renameNew(to place) error {
	err := uninterrupted(func() error {
		return unix.Renameat2(int(p.dir.Fd()), p.base, int(to.dir.Fd()), to.base, unix.RENAME_NOREPLACE)
	})
	return linkError("renameat2", p, to, err)
}
