package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/artstore/artstore-pki/internal/durable"
)

// stagingPrefix begins the names of directories in which a state directory is
// made. A process that is killed leaves one behind; it is in nobody's way.
const stagingPrefix = ".artstore-new-"

// Staging is a state directory that is being made, under a name of its own.
type Staging struct {
	// Dir is where its files are written.
	Dir string

	target    string
	beside    bool // Dir becomes target by one rename; else its entries move into target
	published []string
}

// Begin makes a staging directory for target, which must be absent or empty
// ([durable.ErrNotEmpty]). A target that is there may be a mount point, or in a
// directory where nothing can be made: then the staging directory is inside it.
func Begin(target string) (*Staging, error) {
	target = filepath.Clean(target)
	s := &Staging{target: target}
	entries, err := os.ReadDir(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.beside = true
		if err := durable.MkdirAll(filepath.Dir(target)); err != nil {
			return nil, fmt.Errorf("preparing the state directory: %w", err)
		}
		s.Dir, err = os.MkdirTemp(filepath.Dir(target), stagingPrefix+filepath.Base(target)+"-")
	case err == nil && hasOthers(entries):
		err = fmt.Errorf("%s: %w", target, durable.ErrNotEmpty)
	case err == nil:
		if err = os.Chmod(target, durable.Dir); err == nil {
			s.Dir, err = os.MkdirTemp(target, stagingPrefix)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("preparing the state directory: %w", err)
	}
	return s, nil
}

// hasOthers reports entries that no interrupted Begin has left.
func hasOthers(entries []fs.DirEntry) bool {
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), stagingPrefix) {
			return true
		}
	}
	return false
}

// Publish gives the state directory its name, once all of its files are on the
// disk. It fails with [durable.ErrNotEmpty] if something came there meanwhile.
func (s *Staging) Publish() error {
	if err := s.publish(); err != nil {
		if errors.Is(err, fs.ErrExist) { // ENOTEMPTY is one of them
			err = fmt.Errorf("%s: %w", s.target, durable.ErrNotEmpty)
		}
		return fmt.Errorf("moving the state directory into place: %w", err)
	}
	return nil
}

func (s *Staging) publish() error {
	if s.beside {
		if err := os.Rename(s.Dir, s.target); err != nil {
			return err
		}
		s.published = []string{s.target}
		return durable.SyncDir(filepath.Dir(s.target))
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	// pki.yaml is the last: without it a directory is no authority.
	for _, last := range []bool{false, true} {
		for _, e := range entries {
			if (e.Name() == ConfigFile) != last {
				continue
			}
			to := filepath.Join(s.target, e.Name())
			if _, err := os.Lstat(to); err == nil { // rename(2) would replace a file
				return fs.ErrExist
			}
			if err := os.Rename(filepath.Join(s.Dir, e.Name()), to); err != nil {
				return err
			}
			s.published = append(s.published, to)
		}
	}
	return errors.Join(os.Remove(s.Dir), durable.SyncDir(s.target))
}

// Discard takes everything away that was made, also what Publish has moved.
func (s *Staging) Discard() error {
	err := os.RemoveAll(s.Dir)
	for _, path := range s.published {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// Unfinished reports a directory with parts of an authority and no pki.yaml. An
// init or restore that was killed may have left it.
func Unfinished(dir string) bool {
	if _, err := os.Lstat(Path(dir, ConfigFile)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	for _, name := range []string{"certs", "secrets"} {
		if info, err := os.Stat(Path(dir, name)); err == nil && info.IsDir() {
			return true
		}
	}
	return false
}
