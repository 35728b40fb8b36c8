package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/ca/backup"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/pgtest"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

var postgres pgtest.Server

func TestMain(m *testing.M) {
	defer postgres.Stop()
	m.Run()
}

// issued returns a certificate that the authority has just issued to a service.
func issued(t testing.TB, c *catest.CA) *x509.Certificate {
	t.Helper()
	m, err := enroll.Issue(t.Context(), enroll.Config{
		URL: c.URL, Roots: c.Roots(), InMemory: true,
		Token: func(context.Context) (secret.String, error) { return c.Token(t, "ingester"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return m.Certificate.Leaf
}

// temporary returns the files of a backup that must be gone when it has ended.
func temporary(t testing.TB, dir string) []string {
	t.Helper()
	out, err := filepath.Glob(filepath.Join(dir, ".backup-*"))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func saved(t testing.TB, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := backup.Write(t.Context(), &b, backup.Options{Dir: dir, Encrypted: true, WithPassword: true})
	if err != nil || n < 7 {
		t.Fatalf("%d files, %v", n, err)
	}
	return b.Bytes()
}

func tarNames(t testing.TB, data []byte) (names []string) {
	t.Helper()
	for in := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

// repack copies a backup. change may edit the header and return another content; nil
// leaves the file out.
func repack(t testing.TB, data []byte, change func(h *tar.Header, b []byte) []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, in := tar.NewWriter(&out), tar.NewReader(bytes.NewReader(data))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if b = change(h, b); b == nil {
			continue
		}
		h.Size = int64(len(b))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
