package spool

import (
	"os"
	"testing"
)

// Identify is the identity of a file, as records of the journal have it.
func Identify(t testing.TB, path string) any {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return identify(info)
}
