package enroll

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/internal/flock"
	"github.com/artstore/artstore-pki/rotation/internal/fileaccess"
)

// ErrBusy reports that another writer has locked the identity directory: a running service
// or a command. Two writers would each renew the certificate, which forks its lineage, and
// each would remove the generations of the other.
var ErrBusy = errors.New("another process renews the certificates of this directory")

// lockName is the file that a writer locks. Its content says which process that is. The lock
// itself ends with the process in any case.
const lockName = ".lock"

// maxHolder bounds what is read of a lock file, in bytes.
const maxHolder = 200

// acquire makes this process the one writer of the directory until release is called. If
// this user cannot write to the directory, acquire succeeds without a lock: every write
// fails by itself.
func (s *store) acquire() (release func(), err error) {
	if err := s.check(); err != nil { // first, so that no lock file is left in a foreign directory
		return nil, err
	}
	path := filepath.Join(s.dir, lockName)
	f, err := fileaccess.OpenLock(path)
	if err != nil {
		if !fileaccess.CanWrite(s.dir) {
			return func() {}, nil
		}
		return nil, fmt.Errorf("locking the identity directory: %w", err)
	}
	busy, err := flock.Try(f, false)
	switch {
	case errors.Is(err, errors.ErrUnsupported): // on such a system the operator must see to it
		err = nil
	case err != nil:
		err = fmt.Errorf("locking the identity directory: %s: %w", path, err)
	case busy:
		err = fmt.Errorf("locking the identity directory %s: %w%s", s.dir, ErrBusy, holder(f))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.place = fileaccess.Place(f)
	host, _ := os.Hostname() // without it, the number of the process is enough
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "process %d on %s\n", os.Getpid(), oneLine(host))
	}
	return func() { _ = flock.Close(f) }, nil // nothing was written that could be lost
}

// holder returns the content of the lock file with a colon before it, "" if it is empty.
func holder(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, maxHolder))
	if said := oneLine(string(text)); err == nil && said != "" {
		return ": " + said
	}
	return ""
}
