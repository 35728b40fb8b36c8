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

// stagingPrefix begins the names of directories in which a state directory is made. A
// process that is killed leaves such a directory, which later calls of Begin ignore.
const stagingPrefix = ".artstore-new-"

// manifestFile is in a staging directory while its entries are moved into the target, and
// names them, one in a line. If the process is killed, the next Begin moves them back by
// this list, unless the last one was moved: pki.yaml, or request/ if there is no pki.yaml yet.
const manifestFile = ".moving"

// Staging is a state directory that is being made, under a name of its own.
type Staging struct {
	// Dir is where its files are written.
	Dir string

	target    string
	beside    bool // Dir becomes target by one rename; otherwise its entries are moved into target
	published []string
	rename    func(from, to string) error
}

// Begin makes a staging directory for target, which must be absent or empty
// ([durable.ErrNotEmpty]). An existing target may be a mount point, or be in a directory that
// is not writable, so the staging directory is inside it then.
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

// settled returns the entries of the target, after it has moved back the entries of a Publish
// that was killed.
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

// takeBack moves entries of the target back into their staging directory, unless all of them
// were moved, in which case the target is complete.
func takeBack(staging, target string) error {
	names, err := os.ReadFile(filepath.Join(staging, manifestFile))
	if err == nil {
		_, err = os.Lstat(filepath.Join(staging, ConfigFile))
	}
	if errors.Is(err, fs.ErrNotExist) && len(names) > 0 {
		_, err = os.Lstat(filepath.Join(staging, requestDir))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // none was moved, or all were
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
			continue // it was not moved, so an entry of this name in the target is not ours
		}
		if err := os.Rename(filepath.Join(target, name), back); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.SyncDir(target)
}

// hasOthers reports whether there are entries other than staging directories.
func hasOthers(entries []fs.DirEntry) bool {
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), stagingPrefix) {
			return true
		}
	}
	return false
}

// Publish gives the state directory its name. All its files must be written already. It fails
// with [durable.ErrNotEmpty] if the target got entries meanwhile.
func (s *Staging) Publish() error {
	if err := s.publish(); err != nil {
		if errors.Is(err, fs.ErrExist) { // ENOTEMPTY is an ErrExist
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
	// pki.yaml is moved last: without it a directory is no authority. A directory that waits for a
	// certificate has it in request/.
	for _, last := range []bool{false, true} {
		for _, e := range entries {
			if (e.Name() == ConfigFile || e.Name() == requestDir) != last {
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

// Discard removes all that was made, also entries that Publish has moved.
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
	if _, err := os.Lstat(Path(dir, ConfigFile)); !errors.Is(err, fs.ErrNotExist) || Waiting(dir) {
		return false
	}
	for _, name := range []string{"certs", "secrets"} {
		if info, err := os.Stat(Path(dir, name)); err == nil && info.IsDir() {
			return true
		}
	}
	return false
}
