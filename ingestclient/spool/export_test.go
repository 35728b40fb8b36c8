package spool

import (
	"os"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
)

// Identify is the identity of a file, as records of the journal have it.
func Identify(t testing.TB, path string) any {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fileat.IDOf(info)
}
