//go:build !unix

package agent

import "syscall"

// These systems have no signals for programs; sending one fails.
const (
	sigusr1 = syscall.Signal(10)
	sigusr2 = syscall.Signal(12)
)
