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

// dirMode returns the mode of a directory whose files have mode m: who may read may enter.
func dirMode(m fs.FileMode) fs.FileMode {
	if m&0o040 != 0 {
		return 0o750
	}
	return durable.Dir
}

// want returns the mode that a file must have, or 0 if any will do.
func (a Access) want(name string, secrets []string) fs.FileMode {
	switch {
	case a.Mode == 0:
		return 0
	case name == ".":
		return dirMode(a.Mode)
	case slices.Contains(secrets, name):
		return a.Mode
	}
	return 0
}

// names returns the files in dir, and last dir itself, so that others can enter it when all is done.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(entries)+1)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return append(out, "."), nil
}

// apply sets owner, group and mode of a generation that is not in effect yet.
func (a Access) apply(dir string, secrets []string) error {
	uid, gid, err := a.ids()
	if err != nil || a == (Access{}) {
		return err
	}
	all, err := names(dir)
	if err != nil {
		return err
	}
	for _, name := range all {
		path := filepath.Join(dir, name)
		if uid >= 0 || gid >= 0 {
			if err := os.Lchown(path, uid, gid); err != nil {
				return fmt.Errorf("setting the owner: %w", err)
			}
		}
		if mode := a.want(name, secrets); mode != 0 {
			if err := os.Chmod(path, mode); err != nil {
				return fmt.Errorf("setting the mode: %w", err)
			}
		}
	}
	return nil
}

// differs reports whether a file of a generation has another owner, group or mode.
func (a Access) differs(dir string, secrets []string) (bool, error) {
	uid, gid, err := a.ids()
	if err != nil {
		return false, err
	}
	all, err := names(dir)
	if err != nil {
		return false, err
	}
	for _, name := range all {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return false, err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		mode := a.want(name, secrets)
		if ok && (uid >= 0 && int(st.Uid) != uid || gid >= 0 && int(st.Gid) != gid) || mode != 0 && info.Mode().Perm() != mode {
			return true, nil
		}
	}
	return false, nil
}

// makeDir makes the directory of an identity, if it is absent, for those who may read the files. An
// existing one is the operator's.
func (a Access) makeDir(dir string) error {
	uid, gid, err := a.ids()
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := durable.MkdirAll(filepath.Dir(dir)); err != nil {
		return err
	}
	// It gets its name last: killed before that, it is made anew at the next start.
	made, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".new*") // 0700
	if err != nil {
		return err
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Chown(made, uid, gid); err != nil {
			return errors.Join(fmt.Errorf("setting the owner: %w", err), os.Remove(made))
		}
	}
	err = os.Chmod(made, dirMode(a.Mode))
	if err == nil {
		err = os.Rename(made, dir)
	}
	if err != nil {
		return errors.Join(err, os.Remove(made))
	}
	return durable.SyncDir(filepath.Dir(dir))
}
