//go:build unix

package settings

import (
	"os"
	"syscall"
)

// tooOpen says why others can get at a key file, "" if they cannot. As in libpq:
// 0600, or 0640 if root owns it, which is how Kubernetes mounts secrets for a
// pod with an fsGroup.
func tooOpen(info os.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	if mode&0o077 == 0 || ok && st.Uid == 0 && mode&0o037 == 0 {
		return ""
	}
	return "lets others read the key: want 0600 (0640 if root owns it)"
}
