//go:build unix

package agent

import "syscall"

const (
	sigusr1 = syscall.SIGUSR1
	sigusr2 = syscall.SIGUSR2
)
