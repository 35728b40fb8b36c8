package enroll_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// readDir reads the three files as another program would, by their plain names.
func readDir(t *testing.T, dir string) rotation.Material {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	pair, err := tls.X509KeyPair(read("tls.crt"), read("tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots, err := pemfile.Certificates(read("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	return rotation.Material{Certificate: pair, Roots: roots}
}

func material(t testing.TB, name string) rotation.Material {
	t.Helper()
	root := testpki.Root(t, "Root of "+name)
	return rotation.Material{Certificate: root.Leaf(t, name).TLS(), Roots: []*x509.Certificate{root.Cert}}
}

func TestWriteFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for _, name := range []string{"one", "two", "three", "four"} {
		m := material(t, name)
		if err := enroll.WriteFiles(dir, m); err != nil {
			t.Fatal(err)
		}
		if got := readDir(t, dir); !got.Certificate.Leaf.Equal(m.Certificate.Leaf) || !got.Roots[0].Equal(m.Roots[0]) {
			t.Errorf("%s: the files hold something else", name)
		}
	}
	for name, mode := range map[string]fs.FileMode{"": 0o700, "tls.key": 0o600, "tls.crt": 0o644, "ca.crt": 0o644} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%q: mode %v, %v; want %o", name, fi.Mode().Perm(), err, mode)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3+1+1+2 {
		t.Errorf("entries %v, %v; want three links, the lock, current and two generations", entries, err)
	}
}

func TestWriteFilesKeepsForeignFiles(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a file": func(p string) error { return os.WriteFile(p, []byte("mine"), 0o600) },
		"a link": func(p string) error { return os.Symlink("/etc/hostname", p) },
	} {
		for _, file := range []string{"tls.crt", "tls.key", "ca.crt", "current"} {
			dir := t.TempDir()
			path := filepath.Join(dir, file)
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			err := enroll.WriteFiles(dir, material(t, "x"))
			if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s at %s: %v, want fs.ErrExist with the path", name, file, err)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 1 {
				t.Errorf("%s at %s: left %v", name, file, entries)
			}
		}
	}
}

func TestWriteFilesRefuses(t *testing.T) {
	good := material(t, "x")
	for name, m := range map[string]rotation.Material{
		"nothing":  {},
		"no roots": {Certificate: good.Certificate},
		"no key":   {Certificate: tls.Certificate{Certificate: good.Certificate.Certificate}, Roots: good.Roots},
		"garbage":  {Certificate: tls.Certificate{Certificate: [][]byte{{1}}, PrivateKey: good.Certificate.PrivateKey}, Roots: good.Roots},
	} {
		dir := filepath.Join(t.TempDir(), "d")
		if err := enroll.WriteFiles(dir, m); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the directory was made", name)
		}
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := enroll.WriteFiles(file, good); err == nil {
		t.Error("a file was taken for a directory")
	}
}

// TestWriteFilesIsOneStep expects that a reader that opens the files at any moment sees
// one generation.
func TestWriteFilesIsOneStep(t *testing.T) {
	dir := t.TempDir()
	ms := []rotation.Material{material(t, "one"), material(t, "two")}
	if err := enroll.WriteFiles(dir, ms[0]); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 60 {
			if err := enroll.WriteFiles(dir, ms[i%2]); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for reads := 0; ; {
		select {
		case err := <-done:
			if err != nil || reads == 0 {
				t.Errorf("writer: %v; %d whole reads", err, reads)
			}
			return
		default:
		}
		gen, err := os.Readlink(filepath.Join(dir, "current"))
		if err != nil {
			t.Fatalf("between two generations there is none: %v", err)
		}
		cert, err1 := os.ReadFile(filepath.Join(dir, gen, "tls.crt"))
		key, err2 := os.ReadFile(filepath.Join(dir, gen, "tls.key"))
		if errors.Is(err1, fs.ErrNotExist) || errors.Is(err2, fs.ErrNotExist) {
			continue // two generations later: resolve again
		}
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			t.Fatalf("torn: %v", err)
		}
		reads++
	}
}

// TestDamagedStore expects that a damaged stored identity is not used: with a token a
// new one is made, without one the error has the file.
func TestDamagedStore(t *testing.T) {
	dir := t.TempDir()
	if err := enroll.WriteFiles(dir, material(t, "x")); err != nil {
		t.Fatal(err)
	}
	other, err := pemfile.EncodePrivateKey(crypto.Signer(testpki.Key(t)))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"tls.key": other, "tls.crt": []byte("-----BEGIN"), "ca.crt": nil} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		src, err := enroll.New(enroll.Config{URL: "https://ca.test", Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		err = src.Watch(t.Context(), func(rotation.Material) error { t.Error(name + ": yielded"); return nil })
		if err == nil || !strings.Contains(err.Error(), "reading the stored identity: "+dir) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
