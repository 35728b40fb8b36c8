package frame

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Usage is what a process costs.
type Usage struct {
	CPU    time.Duration // user and system
	Memory int64         // resident set, bytes: of now while it runs, the peak when it has ended
}

// MiB is Memory in the unit of the tables.
func (u Usage) MiB() float64 { return float64(u.Memory) / (1 << 20) }

// tick is the unit of /proc/PID/stat, 10 ms on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// Running reads what a process that runs has used so far, by proc(5); CPU in steps of 10 ms.
func Running(pid int) (Usage, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // behind the name of the program, which may have spaces
	f := strings.Fields(rest)
	if len(f) < 22 {
		return Usage{}, fmt.Errorf("/proc/%d/stat is short", pid)
	}
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	pages, err3 := strconv.ParseInt(f[21], 10, 64)
	return Usage{time.Duration(user+system) * tick, pages * int64(os.Getpagesize())}, errors.Join(err1, err2, err3)
}

// Ended reads what the kernel kept of a process that has ended. The peak of a
// child begins with that of its parent: whoever measures stays small.
func Ended(p *os.ProcessState) Usage {
	u := Usage{CPU: p.UserTime() + p.SystemTime()}
	if r, ok := p.SysUsage().(*syscall.Rusage); ok {
		u.Memory = r.Maxrss << 10 // Linux counts in KiB
	}
	return u
}

// Measure runs a command to its end. Its output goes where the caller said; the
// beginning of what it complains about (standard error) is part of the error.
func Measure(cmd *exec.Cmd) (Usage, error) {
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	if err := cmd.Run(); err != nil {
		return Usage{}, fmt.Errorf("%w: %.300s", err, complaint.String())
	}
	return Ended(cmd.ProcessState), nil
}

// OwnCPU is the processor time of this process so far, user and system, and nobody else's work.
func OwnCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // with these arguments it cannot fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// FreeAddress is one of 127.0.0.1 on which nobody listens: for a program that does
// not say which one it chose.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
