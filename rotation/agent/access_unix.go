//go:build unix

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/artstore/artstore-pki/internal/durable"
)

// ids returns the numbers of owner and group, -1 for what is not set.
func (a Access) ids() (uid, gid int, err error) {
	uid, gid = -1, -1
	if a.Owner != "" {
		if uid, err = strconv.Atoi(a.Owner); err != nil {
			u, err := user.Lookup(a.Owner)
			if err != nil {
				return 0, 0, fmt.Errorf("owner: there is no user %q", a.Owner)
			}
			uid, _ = strconv.Atoi(u.Uid) // a number on these systems
		}
	}
	if a.Group != "" {
		if gid, err = strconv.Atoi(a.Group); err != nil {
			g, err := user.LookupGroup(a.Group)
			if err != nil {
				return 0, 0, fmt.Errorf("group: there is no group %q", a.Group)
			}
			gid, _ = strconv.Atoi(g.Gid)
		}
	}
	return uid, gid, nil
}

// dirMode is the mode of directories if other users shall read files in them. The files have modes of
// their own, and their names are no secret. The directories stay those of the agent's user: a
// program that owned them could put links in place of the files, which the agent, often root,
// would follow.
const dirMode fs.FileMode = 0o755

// want returns the mode that a file must have, or 0 if any will do.
func (a Access) want(name string, secrets []string) fs.FileMode {
	if slices.Contains(secrets, name) {
		return a.Mode
	}
	return 0
}

// eachFile calls do with each file of a generation, open. A file that is no regular one, or has
// another name elsewhere, is an error: it was not written by the agent.
func eachFile(dir string, do func(f *os.File, info fs.FileInfo) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing was written through it
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := withFile(root, e.Name(), do); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, e.Name()), err)
		}
	}
	return nil
}

// withFile opens one file for do.
func withFile(root *os.Root, name string, do func(f *os.File, info fs.FileInfo) error) error {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written through it
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !info.Mode().IsRegular() || ok && st.Nlink != 1 {
		return errors.New("it is not a file of the agent")
	}
	return do(f, info)
}

// apply sets owner, group and mode of a generation that is not in effect yet. The directory is
// opened for others last.
func (a Access) apply(dir string, secrets []string) error {
	uid, gid, err := a.ids()
	if err != nil || a == (Access{}) {
		return err
	}
	err = eachFile(dir, func(f *os.File, info fs.FileInfo) error {
		if uid >= 0 || gid >= 0 {
			if err := f.Chown(uid, gid); err != nil {
				return err
			}
		}
		if mode := a.want(info.Name(), secrets); mode != 0 {
			return f.Chmod(mode)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("setting owner and mode: %w", err)
	}
	return os.Chmod(dir, dirMode)
}

// differs reports whether a file of a generation has another owner, group or mode.
func (a Access) differs(dir string, secrets []string) (bool, error) {
	uid, gid, err := a.ids()
	if err != nil || a == (Access{}) {
		return false, err
	}
	other := false
	err = eachFile(dir, func(_ *os.File, info fs.FileInfo) error {
		st, ok := info.Sys().(*syscall.Stat_t)
		mode := a.want(info.Name(), secrets)
		other = other || ok && (uid >= 0 && int(st.Uid) != uid || gid >= 0 && int(st.Gid) != gid) || mode != 0 && info.Mode().Perm() != mode
		return nil
	})
	info, unread := os.Stat(dir)
	if err = errors.Join(err, unread); err != nil {
		return false, err
	}
	return other || info.Mode().Perm() != dirMode, nil
}

// makeDir makes the directory of an identity, if it is absent: for the agent alone, or, if the
// configuration names those who may read, for all to enter. An existing one is the operator's.
func (a Access) makeDir(dir string) error {
	if _, _, err := a.ids(); err != nil {
		return err
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := durable.MkdirAll(filepath.Dir(dir)); err != nil {
		return err
	}
	mode := durable.Dir
	if a != (Access{}) {
		mode = dirMode
	}
	// It gets its name last: killed before that, it is made anew at the next start.
	made, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".new*") // 0700
	if err != nil {
		return err
	}
	err = os.Chmod(made, mode)
	if err == nil {
		err = os.Rename(made, dir)
	}
	if err != nil {
		return errors.Join(err, os.Remove(made))
	}
	return durable.SyncDir(filepath.Dir(dir))
}
