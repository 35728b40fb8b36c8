// Package flock takes locks on files that end with the process, however that ends.
package flock

import "os"

// Try takes the lock of f, for itself or shared with others, without waiting.
// busy: another process has it. Closing f gives the lock back. The error matches
// [errors.ErrUnsupported] on systems without such locks.
func Try(f *os.File, shared bool) (busy bool, err error) { return try(f, shared) }
