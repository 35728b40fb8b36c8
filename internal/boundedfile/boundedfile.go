// Package boundedfile reads files that a configuration or a command line names, so that a wrong name, such
// as that of a disk image, costs no memory.
package boundedfile

import (
	"fmt"
	"io"
	"os"
)

// Read returns the content of a file of limit bytes at most. A larger one is an error that names it, and
// is not read to its end.
func Read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %s", path, size(limit))
	}
	return data, err
}

// size writes a limit in the unit in which it was chosen.
func size(limit int64) string {
	if limit%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", limit>>20)
	}
	return fmt.Sprintf("%d KiB", limit>>10)
}
