package enroll

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/revocation"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/internal/fileaccess"
)

// Names in the directory [Config.Dir]. The first five are links into the current
// generation, for programs that need fixed names:
//
//	tls.crt -> current/tls.crt      leaf first, then chain
//	tls.key -> current/tls.key      PKCS #8, 0600
//	ca.crt  -> current/ca.crt       trust bundle
//	crl.pem -> current/crl.pem      revoked lists, then their issuers that are not in tls.crt or ca.crt; only if there are any
//	crl.kept -> current/crl.kept    0600, certificates that only earlier lists named and that have not ended; only if there are any
//	authority.json                 the address of the authority
//	log.head                       the newest head of the authority's log
//	.lock                          locked by the one writer
//	current -> gen-1234567890       the link that a rename swaps
//	gen-1234567890/                 never written again once current points to it
//
// Crash story: a generation is complete and synced before the rename that makes it
// current. A crash before the rename leaves a directory that the next save removes. A
// crash after it leaves the new generation.
const (
	certName    = "tls.crt"
	keyName     = "tls.key"
	caName      = "ca.crt"
	crlName     = "crl.pem"
	keptName    = "crl.kept"
	headName    = "log.head"
	currentName = "current"
	genPrefix   = "gen-"
)

// fileNames are the links to files of the current generation. The last two exist only if
// the files do.
var fileNames = [...]string{certName, keyName, caName, crlName, keptName}

// WriteFiles stores m in dir for other programs: tls.crt (leaf first, then chain), tls.key
// (PKCS #8, 0600) and ca.crt; crl.pem if m has revoked lists; crl.kept (0600) if m has kept
// certificates. One rename replaces them all. Files with these names that neither
// WriteFiles nor a [Source] has made are not replaced: the error is then fs.ErrExist.
func WriteFiles(dir string, m rotation.Material) error {
	i, err := newIdentity(m)
	if err != nil {
		return fmt.Errorf("writing %s: %w", dir, err)
	}
	s := &store{dir: dir, lost: func(string) {}}
	release, err := s.acquire()
	if err != nil {
		return fmt.Errorf("writing %s: %w", dir, err)
	}
	defer release()
	_, err = s.save(i)
	return err
}

// Rewrite stores the identity in [Config.Dir] as a new generation with the same certificate and
// trust. It is for a [Config.Complete] that does something else than before, and needs no
// authority. The error matches fs.ErrNotExist if nothing is stored, and [ErrBusy] while
// Watch runs, here or in another process.
func (s *Source) Rewrite() error {
	if s.store == nil {
		return errors.New("storing the identity again: no directory holds one (Dir)")
	}
	release, err := s.store.acquire()
	if err != nil {
		return err
	}
	defer release()
	i, err := s.store.load()
	if err != nil {
		return err
	}
	_, err = s.store.save(i)
	return err
}

// store keeps generations in a directory.
type store struct {
	dir  string
	lost func(path string) // is called for a file that could not get owner, group or ACL of its predecessor
	// complete is [Config.Complete], and may be nil.
	complete func(dir, before string, m rotation.Material) error
	place    string // where the locked directory is, "" without a lock
}

// check makes the directory, and returns an error if save would fail. It is called before a
// token is spent on a certificate that could not be stored.
func (s *store) check() error {
	if err := durable.MkdirAll(s.dir); err != nil {
		return fmt.Errorf("preparing the identity directory: %w", err)
	}
	switch path, target := firstForeign(s.dir); {
	case target != "":
		return fmt.Errorf("preparing the identity directory: %s links to %s: %w", path, target, fs.ErrExist)
	case path != "":
		return fmt.Errorf("preparing the identity directory: %s is not ours to replace: %w", path, fs.ErrExist)
	}
	return nil
}

// firstForeign returns the path of a file in dir that save would have to replace but has
// not made, and its target if it is a link. path is "" if there is none.
func firstForeign(dir string) (path, target string) {
	for _, name := range fileNames {
		path := filepath.Join(dir, name)
		target, err := os.Readlink(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && target == filepath.Join(currentName, name) {
			continue
		}
		return path, target
	}
	if _, err := (&store{dir: dir}).currentTarget(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return filepath.Join(dir, currentName), ""
	}
	return "", ""
}

// currentTarget returns the name of the current generation. A link to another place is not
// ours, and must not be swapped.
func (s *store) currentTarget() (string, error) {
	t, err := os.Readlink(filepath.Join(s.dir, currentName))
	if err == nil && !strings.HasPrefix(t, genPrefix) {
		return "", fmt.Errorf("%s links to %s, which is no generation", filepath.Join(s.dir, currentName), t)
	}
	return t, err
}

// load reads the current generation. If there is none, it reads the files of dir itself, so
// that the certificate of another tool can be renewed. The error is fs.ErrNotExist if
// there is nothing.
func (s *store) load() (*identity, error) {
	from := s.dir
	if t, err := s.currentTarget(); err == nil {
		from = filepath.Join(s.dir, t) // resolved once, so that all files are of one generation
	}
	i, err := readIdentity(from)
	if err != nil {
		return nil, fmt.Errorf("reading the stored identity: %w", err)
	}
	return i, nil
}

// readIdentity reads the files of dir strictly. It checks that the key fits, because
// another tool may be in the middle of a change of its files.
func readIdentity(dir string) (*identity, error) {
	var i identity
	for _, f := range []struct {
		name  string
		parse func([]byte) error
	}{
		{certName, func(b []byte) (err error) { i.chain, err = pemfile.Certificates(b); return err }},
		{keyName, func(b []byte) (err error) { i.key, err = pemfile.PrivateKey(b); return err }},
		{caName, func(b []byte) (err error) { i.roots, err = pemfile.Certificates(b); return err }},
		{crlName, func(b []byte) (err error) { i.lists, err = parseLists(b, &i); return err }}, // after the others: it refers to them
		{keptName, func(b []byte) (err error) { i.kept, err = revocation.ParseKept(b); return err }},
	} {
		path := filepath.Join(dir, f.name)
		b, err := os.ReadFile(path)
		if (f.name == crlName || f.name == keptName) && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := f.parse(b); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if !certs.Fits(i.leaf(), i.key) {
		return nil, fmt.Errorf("%s: the private key does not fit the certificate", dir)
	}
	return &i, nil
}

// save makes i the current generation. undo makes the generation before current again; it
// may be called until the next save, which removes that generation.
//
// The links with fixed names are made after the swap. At the first save they appear one
// after the other; before that no program had a working set. At later ones they exist.
func (s *store) save(i *identity) (undo func() error, err error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	before, _ := s.currentTarget() // "" at the first save
	gen, err := s.writeGeneration(i, before)
	if err != nil {
		return nil, fmt.Errorf("storing the identity: %w", err)
	}
	restoreHead := func() error { return nil }
	if i.newAuthority {
		restoreHead, err = s.setHeadAside()
	}
	if err == nil {
		err = s.swapCurrent(gen)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("storing the identity: %w", err), restoreHead(), os.RemoveAll(filepath.Join(s.dir, gen)))
	}
	if err := s.link(); err != nil {
		return nil, fmt.Errorf("storing the identity: %w", err)
	}
	if err := s.prune(before, gen); err != nil {
		return nil, fmt.Errorf("storing the identity: pruning: %w", err)
	}
	return func() error {
		if before == "" {
			return os.Remove(filepath.Join(s.dir, currentName))
		}
		return errors.Join(restoreHead(), s.swapCurrent(before), s.link())
	}, nil
}

// setHeadAside renames the head of the log of another authority, so that the first head of
// the new one is stored. This must come before the new generation: a crash in between then
// leaves no head, instead of one that no later head can follow.
func (s *store) setHeadAside() (restore func() error, err error) {
	from, to := filepath.Join(s.dir, headName), filepath.Join(s.dir, headName+".old")
	switch err := os.Rename(from, to); {
	case errors.Is(err, fs.ErrNotExist):
		return func() error { return nil }, nil
	case err != nil:
		return func() error { return nil }, err
	}
	return func() error { return os.Rename(to, from) }, nil
}

// link makes the links with fixed names, and removes those whose file does not exist.
func (s *store) link() error {
	for _, name := range fileNames {
		path := filepath.Join(s.dir, name)
		if _, err := os.Stat(filepath.Join(s.dir, currentName, name)); errors.Is(err, fs.ErrNotExist) {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		err := os.Symlink(filepath.Join(currentName, name), path)
		if err != nil && !errors.Is(err, fs.ErrExist) { // check has found that existing ones are ours
			return err
		}
	}
	return nil
}

// writeGeneration writes a new generation, to which nothing points yet, and returns its
// name. Each file is synced, and so is the directory. Owner, group, mode and ACL are those
// of the generation before, if there is one.
func (s *store) writeGeneration(i *identity, before string) (string, error) {
	key, err := pemfile.EncodePrivateKey(i.key)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(s.dir, genPrefix) // 0700
	if err != nil {
		return "", err
	}
	err = errors.Join(
		durable.WriteNew(filepath.Join(dir, keyName), key, durable.Private),
		durable.WriteNew(filepath.Join(dir, certName), pemfile.EncodeCertificates(i.chain), durable.Public),
		durable.WriteNew(filepath.Join(dir, caName), pemfile.EncodeCertificates(i.roots), durable.Public),
	)
	if len(i.lists) > 0 {
		err = errors.Join(err, durable.WriteNew(filepath.Join(dir, crlName), i.lists.encode(i), durable.Public))
	}
	if kept := i.kept.Encode(); kept != nil {
		err = errors.Join(err, durable.WriteNew(filepath.Join(dir, keptName), kept, durable.Private))
	}
	if err == nil && before != "" {
		err = s.keepAccessOf(before, filepath.Base(dir))
	}
	if err == nil && s.complete != nil {
		if err = s.complete(dir, s.pathOf(before), i.material()); err == nil {
			err = durable.SyncDir(dir)
		}
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return filepath.Base(dir), nil
}

// pathOf returns the directory of a generation, "" for none.
func (s *store) pathOf(gen string) string {
	if gen == "" {
		return ""
	}
	return filepath.Join(s.dir, gen)
}

// keepAccessOf gives the files of generation gen owner, group, mode and ACL of those of the
// generation before. crl.pem gets those of ca.crt and crl.kept those of tls.key, because
// they may be new.
func (s *store) keepAccessOf(before, gen string) error {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing was written through it
	for _, f := range []struct {
		name, like string
		most       fs.FileMode
	}{
		{certName, certName, durable.Public},
		{keyName, keyName, mostOfSecrets},
		{caName, caName, durable.Public},
		{crlName, caName, durable.Public},
		{keptName, keyName, mostOfSecrets},
		{".", ".", mostOfDirs}, // last: before that, nobody else can open the files
	} {
		to := filepath.Join(gen, f.name)
		if _, err := root.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		lost, err := fileaccess.Keep(root, filepath.Join(before, f.like), to, f.most)
		if err != nil {
			return fmt.Errorf("keeping owner and mode of %s: %w", filepath.Join(s.dir, to), err)
		}
		if lost {
			s.lost(filepath.Join(s.dir, to))
		}
	}
	return nil
}

// The most permissive modes that a renewal keeps.
const (
	mostOfSecrets fs.FileMode = 0o640
	mostOfDirs    fs.FileMode = 0o755
)

// swapCurrent makes gen the current generation: it renames a new link over "current".
func (s *store) swapCurrent(gen string) error {
	tmp := filepath.Join(s.dir, "."+currentName+"."+gen)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(gen, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(s.dir, currentName)); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return durable.SyncDir(s.dir)
}

// prune removes generations other than those in keep. The generation before the current
// one stays for undo, and for readers that have resolved the link but not yet opened all
// files.
func (s *store) prune(keep ...string) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), genPrefix) || slices.Contains(keep, e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
