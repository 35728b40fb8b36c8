// Package coredump keeps the memory of a process, and so its keys and tokens, out
// of core dumps.
//
//	err := coredump.Disable() // first of all in main
//
// On Linux it does two things, because either alone has a hole. A limit of 0 for
// the size of core files (setrlimit(2), RLIMIT_CORE) is inherited by children, but
// does not hold where kernel.core_pattern pipes the dump to a program. A process
// that is not dumpable (prctl(2), PR_SET_DUMPABLE) is never dumped, and cannot be
// read by others of the same user through ptrace(2) or /proc/PID/mem; exec resets
// that. Elsewhere Disable does nothing.
package coredump
