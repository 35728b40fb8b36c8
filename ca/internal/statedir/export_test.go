package statedir

import (
	"errors"
	"io/fs"

	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/durable"
)

// ErrKilled is what Publish returns where a test has it stop.
var ErrKilled = errors.New("killed")

// KillAfter stops Publish after so many moves; the caller does nothing more, as a process that was killed.
func (s *Staging) KillAfter(moves int) {
	rename := s.rename
	s.rename = func(from, to string) error {
		if moves--; moves < 0 {
			return ErrKilled
		}
		return rename(from, to)
	}
}

// BeforeWrite has ChangePassword call f before each write, and stop if f returns an error.
func (c *PasswordChange) BeforeWrite(f func() error) {
	c.write = func(path string, data []byte, mode fs.FileMode) error {
		if err := f(); err != nil {
			return err
		}
		return durable.WriteFile(path, data, mode)
	}
}

// Install is what Fetch does with each row.
func (f Dir) Install(row truststore.Row, key *translog.Key) error { return f.install(row, key) }
