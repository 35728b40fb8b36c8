package workload

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// knowsPeers says that the kernel records who has connected.
const knowsPeers = true

// processRuns reports, as an error, why the process that has connected does not run the file at path. fd
// is the connection, pid the process as the kernel has recorded it.
//
// The number of a process that has ended can be given to another one. So the order is: first the
// kernel gives a handle of the process (Linux 6.5), then its number leads to the file that it
// runs, and at last the handle shows that the process has not ended. Older kernels have no
// such handle, and the number decides alone.
func processRuns(fd int, pid int32, path string) error {
	if pid <= 0 {
		return errors.New("its process is in another PID namespace")
	}
	handle, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("asking for a handle of process %d: %w", pid, err)
	}
	if err == nil {
		defer func() { _ = unix.Close(handle) }() // nothing was written
	} else {
		handle = -1
	}
	want, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("reading the executable of a rule: %w", err)
	}
	got, err := os.Stat("/proc/" + strconv.Itoa(int(pid)) + "/exe")
	if err != nil {
		return fmt.Errorf("reading what process %d runs: %w", pid, err)
	}
	if !os.SameFile(want, got) {
		return fmt.Errorf("process %d does not run %s", pid, path)
	}
	return stillRuns(handle, pid)
}

// stillRuns reports, as an error, that the process of a handle has ended; -1 is no handle.
func stillRuns(handle int, pid int32) error {
	if handle < 0 {
		return nil
	}
	// Signal 0 is not delivered. EPERM says that there is a process to which we may not send signals.
	if err := unix.PidfdSendSignal(handle, 0, nil, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("process %d has ended: %w", pid, err)
	}
	return nil
}
