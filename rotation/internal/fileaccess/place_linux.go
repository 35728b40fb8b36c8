package fileaccess

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"syscall"
)

// bootID is a random number of the running kernel, see random(4).
const bootID = "/proc/sys/kernel/random/boot_id"

// Place returns a name, 32 digits, for where an open file is: the same for each process that
// opens it on this system until the next boot, and another one for each copy of the file, here
// or on another system. "" if that cannot be known.
func Place(f *os.File) string {
	boot, err := os.ReadFile(bootID)
	if err != nil {
		return ""
	}
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", boot, stat.Dev, stat.Ino)) // the number of the boot stays here
	return hex.EncodeToString(sum[:16])
}
