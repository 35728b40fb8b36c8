package agent

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
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
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/agent/internal/formats"
	"github.com/artstore/artstore-pki/rotation/internal/fileaccess"
	"github.com/artstore/artstore-pki/secret"
)

// Names that rotation/enroll gives to the files of an identity.
const (
	certName, keyName, caName = "tls.crt", "tls.key", "ca.crt"
	listsName, keptName       = "crl.pem", "crl.kept"
	currentName               = "current"
)

const maxFile = 4 << 20 // bytes; a revocation list is the longest

// set is what the files of one generation are, as programs read them.
type set struct {
	id       string // differs when a file differs
	cert     tls.Certificate
	leaf     *x509.Certificate
	roots    []*x509.Certificate
	contents map[string][]byte // by name, all files of the generation
}

// readSet reads the generation in effect. The error matches fs.ErrNotExist if there is none.
func readSet(dir string) (*set, error) {
	gen, err := os.Readlink(filepath.Join(dir, currentName))
	if err != nil {
		return nil, err
	}
	if !filepath.IsLocal(gen) {
		return nil, fmt.Errorf("%s links to %s, which is no generation", filepath.Join(dir, currentName), gen)
	}
	s := &set{contents: map[string][]byte{}}
	entries, err := os.ReadDir(filepath.Join(dir, gen))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		data, err := readRegular(filepath.Join(dir, gen, e.Name()))
		if err != nil {
			return nil, err
		}
		s.contents[e.Name()] = data
	}
	return s, s.parse()
}

// readRegular reads a file and follows no link: the files of a generation are none.
func readRegular(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}

// parse makes the values of the contents. The id has four parts, which [changed] compares.
func (s *set) parse() (err error) {
	if s.cert, err = tls.X509KeyPair(s.contents[certName], s.contents[keyName]); err != nil {
		return fmt.Errorf("reading the set: %w", errors.New("tls.crt and tls.key are no pair"))
	}
	s.leaf = s.cert.Leaf
	if s.roots, err = pemfile.Certificates(s.contents[caName]); err != nil {
		return fmt.Errorf("reading the set: ca.crt: %w", err)
	}
	s.id = strings.Join([]string{
		"certificate:" + certs.Fingerprint(s.leaf), "trust:" + digest(s.contents[caName]), "lists:" + digest(s.contents[listsName]), "files:" + s.digestAll(),
	}, " ")
	return nil
}

// digest returns SHA-256 in hex.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// digestAll covers the files that are for other programs: crl.kept is not.
func (s *set) digestAll() string {
	all := sha256.New()
	names := make([]string, 0, len(s.contents))
	for name := range s.contents {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if name != keptName {
			_, _ = fmt.Fprintf(all, "%s %s\n", name, digest(s.contents[name])) // a hash takes every write
		}
	}
	return hex.EncodeToString(all.Sum(nil))
}

// changed says what differs between two ids of sets, for hooks: certificate, trust, lists; or
// files, if only their forms do.
func changed(before, after string) (out []string) {
	old := strings.Fields(before)
	for _, part := range strings.Fields(after) {
		if name, _, _ := strings.Cut(part, ":"); !slices.Contains(old, part) && (name != "files" || len(out) == 0) {
			out = append(out, name)
		}
	}
	return out
}

// material returns the certificate, the key and the roots of the set.
func (s *set) material() rotation.Material {
	return rotation.Material{Certificate: s.cert, Roots: s.roots}
}

// output is one file that the agent adds to a generation.
type output struct {
	name string
	data []byte
	mode fs.FileMode
}

// outputs encodes the formats of an identity.
func (i *Identity) outputs(m rotation.Material) ([]output, error) {
	var out []output
	for _, f := range i.Formats {
		encoder := formats.Format{Kind: formats.Kind(f.Kind)}
		if f.PasswordFile != "" {
			password, err := secret.ReadFile(f.PasswordFile)
			if err != nil {
				return nil, fmt.Errorf("reading the password of %s: %w", f.File, err)
			}
			encoder.Password = password
		}
		data, err := encoder.Encode(m)
		if err != nil {
			return nil, err
		}
		mode := durable.Public
		if formats.Kind(f.Kind).HasKey() {
			mode = durable.Private
		}
		out = append(out, output{f.File, data, mode})
	}
	return out, nil
}

// complete is the function enroll.Config.Complete of an identity: it writes the other formats and
// sets owners and modes. A file has the rights of its predecessor, and above them those of
// the configuration.
func (i *Identity) complete(dir, before string, m rotation.Material) error {
	if err := i.checkNames(m.Certificate.Leaf); err != nil {
		return err
	}
	outputs, err := i.outputs(m)
	if err != nil {
		return err
	}
	for _, o := range outputs {
		if err := i.ownLink(o.name); err != nil {
			return err
		}
		if err := durable.WriteNew(filepath.Join(dir, o.name), o.data, o.mode); err != nil {
			return err
		}
	}
	if before != "" {
		if err := i.keepAccess(outputs, filepath.Base(before), filepath.Base(dir)); err != nil {
			return err
		}
	}
	if err := i.Access.apply(dir, i.secrets()); err != nil {
		return err
	}
	for _, o := range outputs {
		if err := i.link(o.name); err != nil {
			return err
		}
	}
	return nil
}

// checkNames returns an error if the certificate is not the one that the configuration is about,
// for instance because the token was that of another service.
func (i *Identity) checkNames(leaf *x509.Certificate) error {
	have := append(certs.Names(leaf), leaf.Subject.CommonName)
	want := i.Names
	if i.Service != "" {
		want = append([]string{i.Service}, want...)
	}
	for _, name := range want {
		if !slices.Contains(have, name) {
			return fmt.Errorf("the certificate is for %s, and the configuration wants %s", strings.Join(certs.Names(leaf), ", "), name)
		}
	}
	return nil
}

// keepAccess gives the other formats the rights of the files before them, or, for a new file, of
// tls.key or tls.crt.
func (i *Identity) keepAccess(outputs []output, before, gen string) error {
	root, err := os.OpenRoot(i.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing was written through it
	for _, o := range outputs {
		like, most := certName, durable.Public
		if o.mode == durable.Private {
			like, most = keyName, 0o640
		}
		if _, err := root.Lstat(filepath.Join(before, o.name)); err == nil {
			like = o.name
		}
		if _, err := fileaccess.Keep(root, filepath.Join(before, like), filepath.Join(gen, o.name), most); err != nil {
			return fmt.Errorf("keeping owner and mode of %s: %w", filepath.Join(i.Dir, gen, o.name), err)
		}
	}
	return nil
}

// secrets returns the names of files that have a key.
func (i *Identity) secrets() []string {
	out := []string{keyName, keptName}
	for _, f := range i.Formats {
		if formats.Kind(f.Kind).HasKey() {
			out = append(out, f.File)
		}
	}
	return out
}

// ownLink returns an error if a name in the directory has something that the agent has not made.
func (i *Identity) ownLink(name string) error {
	path := filepath.Join(i.Dir, name)
	target, err := os.Readlink(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && target == filepath.Join(currentName, name) {
		return nil
	}
	return fmt.Errorf("%s is not ours to replace: %w", path, fs.ErrExist)
}

// link makes the fixed name of a file. It may come before the generation takes effect.
func (i *Identity) link(name string) error {
	err := os.Symlink(filepath.Join(currentName, name), filepath.Join(i.Dir, name))
	if errors.Is(err, fs.ErrExist) { // ownLink has found that it is ours
		return nil
	}
	return err
}

// tidy removes the fixed names whose file is not in the generation in effect: those of formats
// that are not configured any more.
func (i *Identity) tidy() error {
	entries, err := os.ReadDir(i.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(i.Dir, e.Name())
		target, err := os.Readlink(path)
		if err != nil || target != filepath.Join(currentName, e.Name()) {
			continue
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// outdated reports whether the generation in effect is not what complete would make of it now,
// because the configuration or a password has changed.
func (i *Identity) outdated(s *set) (bool, error) {
	outputs, err := i.outputs(s.material())
	if err != nil {
		return false, err
	}
	known := []string{certName, keyName, caName, listsName, keptName}
	for _, o := range outputs {
		known = append(known, o.name)
		if data, there := s.contents[o.name]; !there || !bytes.Equal(data, o.data) {
			return true, nil
		}
		if err := i.ownLink(o.name); err != nil {
			return false, err
		}
		if err := i.link(o.name); err != nil { // an operator may have removed it
			return false, err
		}
	}
	for name := range s.contents {
		if !slices.Contains(known, name) {
			return true, nil
		}
	}
	return i.Access.differs(filepath.Join(i.Dir, currentName), i.secrets())
}
