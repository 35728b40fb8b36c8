package spool

import (
	"io/fs"
	"syscall"
	"time"
)

// changeTime is when the inode was changed last: for a claim, when it was made.
func changeTime(info fs.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return time.Time{}
}
