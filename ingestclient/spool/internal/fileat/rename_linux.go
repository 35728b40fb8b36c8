package fileat

import "golang.org/x/sys/unix"

// renameNew moves what is at p, and replaces nothing.
func (p Entry) renameNew(to Entry) error {
	err := uninterrupted(func() error {
		return unix.Renameat2(int(p.Dir.Fd()), p.Base, int(to.Dir.Fd()), to.Base, unix.RENAME_NOREPLACE)
	})
	return linkError("renameat2", p, to, err)
}
