package coredump

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Disable lets the system make no core dump of this process. It cannot be undone
// without privileges.
func Disable() error {
	limit := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) // soft and hard
	dumpable := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if err := errors.Join(limit, dumpable); err != nil {
		return fmt.Errorf("disabling core dumps: %w", err)
	}
	return nil
}
