//go:build !unix

package agent

import (
	"errors"

	"github.com/artstore/artstore-pki/internal/durable"
)

// These systems have no owners and modes that could be set.

func (a Access) apply(string, []string) error {
	if a != (Access{}) {
		return errors.New("owner, group and mode cannot be set on this system")
	}
	return nil
}

func (a Access) differs(string, []string) (bool, error) { return false, nil }

func (a Access) makeDir(dir string) error { return durable.MkdirAll(dir) }
