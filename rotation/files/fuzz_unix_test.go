//go:build unix

package files_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// fuzzedDir interprets fuzz input as operations on a directory. Two bytes each say what
// to do to which entry and with what.
type fuzzedDir struct {
	path     string
	contents [][]byte
	targets  []string
}

var fuzzedNames = []string{"tls.crt", "tls.key", "ca.crt", "crl.pem", "..data", "a", "b", "gen0/tls.crt"}

func (d fuzzedDir) apply(ops []byte) {
	for ; len(ops) >= 2; ops = ops[2:] {
		name := filepath.Join(d.path, fuzzedNames[ops[0]%8])
		arg := int(ops[1] >> 3)
		// What the layout does not allow has no effect.
		switch ops[1] % 8 {
		case 0, 1:
			if info, err := os.Stat(name); err != nil || info.Mode().IsRegular() { // never into a pipe
				_ = os.WriteFile(name, d.contents[arg%len(d.contents)], 0o600)
			}
		case 2, 3, 4: // as kubelet does, over what is there
			_ = os.Remove(name + "~")
			_ = os.Symlink(d.targets[arg%len(d.targets)], name+"~")
			_ = os.Rename(name+"~", name)
		case 5:
			_ = os.Mkdir(name, 0o700)
		case 6:
			_ = os.RemoveAll(name)
		case 7:
			_ = os.Remove(name)
			_ = syscall.Mkfifo(name, 0o600)
		}
	}
}

// FuzzDirectory reads a directory of any layout, which changes between the resolution of
// the links and the reading. Reading never blocks, opens regular files only, and yields
// their content. If all names lead through one link, the parts are of one generation.
func FuzzDirectory(f *testing.F) {
	d := fuzzedDir{targets: []string{"gen0", "gen1", "..data", "..data/tls.crt", "..data/tls.key", "..data/ca.crt", "a", "b", ".", "..", "tls.crt", "gen1/tls.key", "/dev/zero", "/dev/null", "missing"}}
	var sets [2]rotation.Material
	for i := range sets {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i)}, ed25519.SeedSize))
		cert := selfSigned(f, "leaf", key)
		root := selfSigned(f, "root", key)
		sets[i] = rotation.Material{Certificate: tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, Roots: []*x509.Certificate{root}}
		d.contents = append(d.contents, chainPEM(f, sets[i]), keyPEM(f, sets[i]), pemfile.EncodeCertificates(sets[i].Roots))
	}
	d.contents = append(d.contents, nil, []byte("text"), d.contents[0][:90], make([]byte, 1<<20+1))
	volume := []byte{4, 2, 0, 3<<3 | 2, 1, 4<<3 | 2, 2, 5<<3 | 2} // ..data → gen0, and three links through it
	f.Add(volume, []byte{4, 1<<3 | 2})
	f.Add(volume, []byte{4, 6, 4, 1<<3 | 2})
	f.Add(volume, []byte{0, 2 << 3}) // another certificate of the key, written over the leaf through the links
	f.Add([]byte{0, 0, 1, 1 << 3, 2, 2 << 3}, []byte{1, 7})
	f.Add([]byte{0, 0, 1, 1 << 3, 2, 12<<3 | 2}, []byte{})
	f.Add([]byte{5, 7<<3 | 2, 6, 6<<3 | 2, 0, 6<<3 | 2}, []byte{})
	const most = 64 // bytes, two for each operation: some write a megabyte
	f.Fuzz(func(t *testing.T, before, between []byte) {
		before, between = before[:min(len(before), most)], between[:min(len(between), most)]
		d.path = t.TempDir()
		for i := range sets {
			write(t, filepath.Join(d.path, "gen"+string(rune('0'+i))), sets[i])
		}
		d.apply(before)
		through := throughData(d.path)
		watchdog := time.AfterFunc(10*time.Second, func() { panic("reading a directory waits") })
		defer watchdog.Stop()
		m, err := files.ReadSet(files.Set{Dir: d.path}, func() { d.apply(between) })
		if err != nil {
			return
		}
		if !certs.Fits(m.Certificate.Leaf, m.Certificate.PrivateKey.(ed25519.PrivateKey)) || len(m.Roots) == 0 {
			t.Fatal("yielded what is no set")
		}
		of0 := m.Certificate.Leaf.Equal(sets[0].Certificate.Leaf)
		if pristine := len(between) < 4 && !touchesGenerations(before) && !touchesGenerations(between); through && pristine && of0 != m.Roots[0].Equal(sets[0].Roots[0]) {
			t.Fatal("a leaf of one generation beside a root of the other")
		}
		if len(between) < 2 {
			sameAsStands(t, d.path, m)
		}
	})
}

// throughData reports whether all names are links through ..data.
func throughData(dir string) bool {
	for _, n := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if to, err := os.Readlink(filepath.Join(dir, n)); err != nil || to != "..data/"+n {
			return false
		}
	}
	to, err := os.Readlink(filepath.Join(dir, "..data"))
	return err == nil && (to == "gen0" || to == "gen1")
}

// touchesGenerations reports whether ops may have written into a generation, also through links.
func touchesGenerations(ops []byte) bool {
	for ; len(ops) >= 2; ops = ops[2:] {
		if ops[0]%8 == 7 || ops[1]%8 < 2 {
			return true
		}
	}
	return false
}

// sameAsStands reads the directory by other means and compares.
func sameAsStands(t *testing.T, dir string, m rotation.Material) {
	t.Helper()
	for name, want := range map[string][]byte{"tls.crt": m.Certificate.Leaf.Raw, "ca.crt": m.Roots[0].Raw} {
		path, err := filepath.EvalSymlinks(filepath.Join(dir, name))
		if err != nil {
			t.Fatalf("read what does not stand there: %v", err)
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			t.Fatalf("read what is not a regular file: %v %v", info, err)
		}
		data, err := os.ReadFile(path)
		must(t, err)
		certs, err := pemfile.Certificates(data)
		if err != nil || !bytes.Equal(certs[0].Raw, want) {
			t.Fatalf("%s reads otherwise: %v", name, err)
		}
	}
}
