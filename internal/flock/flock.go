// Package flock takes locks on files that end with the process, however that ends.
package flock

import "os"

// Try takes the lock of f, for itself or shared with others, without waiting.
// busy: another process has it. [Close] gives the lock back. The error matches
// [errors.ErrUnsupported] on systems without such locks.
func Try(f *os.File, shared bool) (busy bool, err error) { return try(f, shared) }

// Close gives the lock of f back and closes f. The close alone would not do: a program that is being
// started has all descriptors of this process until it executes, and a lock ends with the last of them. The
// next [Try] of this same process would then find it busy.
func Close(f *os.File) error {
	release(f) // fails where there are no locks
	return f.Close()
}
