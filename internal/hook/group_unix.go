//go:build unix

package hook

import (
	"os/exec"
	"syscall"
)

// ownGroup makes the program the leader of a process group, which gets SIGTERM when the
// context ends. stop ends what is left of it, once the program has been waited for.
func ownGroup(cmd *exec.Cmd) (stop func()) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	return func() {
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // normally the group is empty: ESRCH
		}
	}
}
