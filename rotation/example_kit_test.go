package rotation_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/artstore/artstore-pki/rotation"
)

// exampleCA signs what the examples use. Programs have files.Source or an
// enroll.Source in the place of exampleSource.
var exampleCA = sync.OnceValue(func() *testCA { return newCA(exampleTB{}, "example") })

func exampleSource(name string) rotation.Source {
	return rotation.Static(exampleCA().leaf(exampleTB{}, name, nil))
}

// exampleTB lets the helpers of tests fail in an example, which has no testing.T.
type exampleTB struct{ testing.TB }

func (exampleTB) Helper()           {}
func (exampleTB) Fatal(args ...any) { panic(args) }

// exampleSecret makes a directory as the kubelet does for a secret, and returns
// what swaps in a new one.
func exampleSecret(name string) (dir string, update func()) {
	dir, err := os.MkdirTemp("", "secret")
	check(err)
	update = func() {
		gen, err := os.MkdirTemp(dir, "..gen-")
		check(err)
		write(exampleTB{}, gen, exampleCA().leaf(exampleTB{}, name, nil))
		check(os.Symlink(filepath.Base(gen), filepath.Join(dir, "..data_tmp")))
		check(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	update()
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		check(os.Symlink("..data/"+name, filepath.Join(dir, name)))
	}
	return dir, update
}
