//go:build unix

package source_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// asOrdinaryUser takes the rights of root from this process until the test ends, if it
// has them, because root can read every file. The test must not run beside others, and
// must make its files after this call.
func asOrdinaryUser(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	const nobody = 65534
	certtest.Must(t, syscall.Setreuid(-1, nobody)) // the real user stays root, so that this can be undone
	t.Cleanup(func() { certtest.Must(t, syscall.Setreuid(-1, 0)) })
}

// A key that this user must not read is no row: the certificate beside it is judged alone.
func TestBesideNamedFileUnreadableKey(t *testing.T) {
	asOrdinaryUser(t)
	root, intermediate, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{"ca.crt": certtest.Encode(root), "tls.crt": certtest.Encode(leaf, intermediate), "tls.key": leaf.KeyPEM(t)})
	key := filepath.Join(dir, "tls.key")
	certtest.Must(t, os.Chmod(key, 0))
	if _, err := os.ReadFile(key); !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("the key can be read: %v", err)
	}
	audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(filepath.Join(dir, "tls.crt"))), dir), map[string]string{"tls.crt": "OK", "tls.crt#2": "OK"})
}

// A pattern that leads into a directory which this user must not read is a row.
func TestPatternInUnreadableDirectory(t *testing.T) {
	asOrdinaryUser(t)
	root, intermediate, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{
		"a/tls.crt": certtest.Encode(leaf, intermediate), "a/ca.crt": certtest.Encode(root), "b/ca.crt": certtest.Encode(root),
	})
	certtest.Must(t, os.Chmod(filepath.Join(dir, "b"), 0))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "b"), 0o700) })
	r := audittest.Run(t, audittest.Paths(filepath.Join(dir, "*/*.crt")))
	if got := audittest.States(t, r, dir); got["a/tls.crt"] != "OK" || !strings.HasPrefix(got["*/*.crt"], "ERROR ") {
		t.Errorf("%v", got)
	}
}

// A Live keeps what it cannot read any more, a file and a whole directory, and says since when; what is
// gone leaves.
func TestLiveKeepsWhatFails(t *testing.T) {
	asOrdinaryUser(t)
	_, intermediate, leaf := certtest.Hierarchy(t)
	chain := certtest.Encode(leaf, intermediate)
	dir := certtest.Write(t, map[string][]byte{"a/tls.crt": chain, "b/c/tls.crt": chain, "d/tls.crt": chain})
	live := liveOf(audittest.Paths(dir))
	live.Scan(t.Context())
	state := func() map[string]string {
		out := map[string]string{}
		for _, row := range audittest.Run(t, live).Rows {
			rel, err := filepath.Rel(dir, row.Place)
			certtest.Must(t, err)
			switch {
			case row.Err != nil:
				out[rel] += "failed "
			case !row.Stale.IsZero() && row.Leaf():
				out[rel] += "stale "
			case row.Leaf():
				out[rel] += "fresh "
			}
		}
		return out
	}
	audittest.Want(t, state(), map[string]string{"a/tls.crt": "fresh ", "b/c/tls.crt": "fresh ", "d/tls.crt": "fresh "})
	file, below := filepath.Join(dir, "a/tls.crt"), filepath.Join(dir, "b")
	certtest.Must(t, os.Chmod(file, 0))
	certtest.Must(t, os.Chmod(below, 0))
	t.Cleanup(func() { _ = os.Chmod(below, 0o700) })
	certtest.Must(t, os.RemoveAll(filepath.Join(dir, "d")))
	live.Scan(t.Context())
	audittest.Want(t, state(), map[string]string{"a/tls.crt": "failed stale ", "b": "failed ", "b/c/tls.crt": "stale "})
	certtest.Must(t, os.Chmod(file, 0o600))
	certtest.Must(t, os.Chmod(below, 0o700))
	live.Scan(t.Context())
	audittest.Want(t, state(), map[string]string{"a/tls.crt": "fresh ", "b/c/tls.crt": "fresh "})
}
