package enroll

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/internal/flock"
)

// ErrBusy reports an identity directory that another writer holds: a service that
// runs, or a command. Two of them would each renew the certificate, which forks
// its lineage, and prune what the other made.
var ErrBusy = errors.New("another process renews the certificates of this directory")

// lockName is the file whose lock a writer holds as long as it may write. It says
// who that is; the lock itself ends with the process, however that ends.
const lockName = ".lock"

// maxHolder bounds what is read of a lock file, in bytes.
const maxHolder = 200

// acquire makes this the one writer of the directory until release is called. Where
// files cannot be made, because the system is read-only or belongs to others, there
// is nothing to hold: whatever is to be written fails by itself.
func (s *store) acquire() (release func(), err error) {
	if err := s.check(); err != nil { // first: no file of ours is left in a directory of somebody else
		return nil, err
	}
	path := filepath.Join(s.dir, lockName)
	f, err := openLock(path)
	if err != nil {
		if !canWrite(s.dir) {
			return func() {}, nil
		}
		return nil, fmt.Errorf("locking the identity directory: %w", err)
	}
	busy, err := flock.Try(f, false)
	switch {
	case errors.Is(err, errors.ErrUnsupported): // one writer is the rule all the same
		err = nil
	case err != nil:
		err = fmt.Errorf("locking the identity directory: %s: %w", path, err)
	case busy:
		err = fmt.Errorf("locking the identity directory %s: %w%s", s.dir, ErrBusy, holder(f))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	host, _ := os.Hostname() // a name for people; without it the number is still there
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "process %d on %s\n", os.Getpid(), oneLine(host))
	}
	return func() { _ = f.Close() }, nil // nothing was written that could be lost
}

// holder is what the lock file says about who holds it.
func holder(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, maxHolder))
	if said := oneLine(string(text)); err == nil && said != "" {
		return ": " + said
	}
	return ""
}
