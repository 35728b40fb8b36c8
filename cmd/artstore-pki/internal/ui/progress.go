package ui

import "time"

const (
	// ProgressAfter is how long a command runs before its line of progress appears, so that a
	// short one shows no line at all.
	ProgressAfter = 500 * time.Millisecond
	// ProgressEvery is the time between two updates of the line.
	ProgressEvery = 200 * time.Millisecond
	// EraseLine goes to the first column and erases to the end of the line (ECMA-48, EL).
	EraseLine = "\r\x1b[K"
)
