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

// manifestFile is in a staging directory whose entries are being moved into the
// target: it names them, one a line. What was moved when the process was killed
// is no content of the target, as long as pki.yaml is not.
const manifestFile = ".moving"

// Staging is a state directory that is being made, under a name of its own.
type Staging struct {
	// Dir is where its files are written.
	Dir string

	target    string
	beside    bool // Dir becomes target by one rename; else its entries move into target
	published []string
	rename    func(from, to string) error
}

// Begin makes a staging directory for target, which must be absent or empty
// ([durable.ErrNotEmpty]). A target that is there may be a mount point, or in a
// directory where nothing can be made: then the staging directory is inside it.
func Begin(target string) (*Staging, error) {
	target = filepath.Clean(target)
	s := &Staging{target: target, rename: os.Rename}
	entries, err := settled(target)
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

// settled reads the target, after it has taken back what a Publish that was killed
// had moved there.
func settled(target string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(target)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), stagingPrefix) {
			if err := takeBack(filepath.Join(target, e.Name()), target); err != nil {
				return nil, err
			}
		}
	}
	return os.ReadDir(target)
}

// takeBack moves entries of the target back to where they were made, unless the
// last one was moved as well.
func takeBack(staging, target string) error {
	names, err := os.ReadFile(filepath.Join(staging, manifestFile))
	if err == nil {
		_, err = os.Lstat(filepath.Join(staging, ConfigFile))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was moved, or all
	}
	if err != nil {
		return err
	}
	for name := range strings.Lines(string(names)) {
		name = strings.TrimSuffix(name, "\n")
		if name == "" || filepath.Base(name) != name {
			return fmt.Errorf("%s is damaged", filepath.Join(staging, manifestFile))
		}
		back := filepath.Join(staging, name)
		if _, err := os.Lstat(back); err == nil {
			continue // it was not moved; what has its name in the target is of somebody else
		}
		if err := os.Rename(filepath.Join(target, name), back); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.SyncDir(target)
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
	var names strings.Builder
	for _, e := range entries {
		names.WriteString(e.Name() + "\n")
	}
	manifest := filepath.Join(s.Dir, manifestFile)
	if err := durable.WriteFile(manifest, []byte(names.String()), durable.Private); err != nil {
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
			if err := s.rename(filepath.Join(s.Dir, e.Name()), to); err != nil {
				return err
			}
			s.published = append(s.published, to)
		}
	}
	return errors.Join(os.Remove(manifest), os.Remove(s.Dir), durable.SyncDir(s.target))
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
