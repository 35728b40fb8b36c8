//go:build !unix

package flock

import (
	"errors"
	"fmt"
	"os"
)

func release(*os.File) {}

func try(*os.File, bool) (busy bool, err error) {
	return false, fmt.Errorf("a lock that ends with the process needs a Unix system: %w", errors.ErrUnsupported)
}
