//go:build unix

package fileperm

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

func owner(info fs.FileInfo) (uid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}

// foreign says whose file it is, "" if it is ours, root's or of the owners.
func foreign(info fs.FileInfo, owners []int) string {
	uid, ok := owner(info)
	if !ok || uid == 0 || uid == os.Geteuid() || slices.Contains(owners, uid) {
		return ""
	}
	return fmt.Sprintf("belongs to user %d", uid)
}

func exceeds(info fs.FileInfo, most fs.FileMode) bool {
	uid, ok := owner(info)
	return exceedsMode(info.Mode(), most, ok && uid == 0)
}

func exceedsMode(mode, most fs.FileMode, ofRoot bool) bool {
	if ofRoot && most == Secret {
		most |= 0o040
	}
	return mode.Perm()&^most != 0
}

// writable reports a directory in which others can rename. Group 0 is root's own.
// The mode of a symbolic link means nothing.
func writable(info fs.FileInfo) bool {
	others := fs.FileMode(0o022)
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Gid == 0 {
		others = 0o002
	}
	return info.IsDir() && info.Mode()&fs.ModeSticky == 0 && info.Mode().Perm()&others != 0
}

func modes(info fs.FileInfo, most fs.FileMode) string {
	return fmt.Sprintf("has mode %04o, want %04o", info.Mode().Perm(), most)
}
