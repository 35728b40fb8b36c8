package backup_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/backup"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/durable"
)

// A backup is taken while certificates are issued. An authority that is restored from
// it knows each certificate that was issued before the backup.
func TestBackupWhileIssuing(t *testing.T) {
	c := catest.Start(t, catest.Options{})
	cert := issued(t, c)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				issued(t, c)
			}
		}
	}()
	data := saved(t, c.Dir)
	close(stop)
	<-done
	dir := filepath.Join(t.TempDir(), "new")
	res, err := backup.Restore(t.Context(), bytes.NewReader(data), dir)
	if err != nil || res.RootFingerprint != c.RootFingerprint || res.Elsewhere != "" || res.Created.IsZero() {
		t.Fatalf("%+v %v", res, err)
	}
	again, err := ca.Open(t.Context(), ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if err := again.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	r, err := ca.StateDir(dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if e, err := r.Show(t.Context(), cert.SerialNumber.String()); err != nil || !slices.Equal(e.DER, cert.Raw) {
		t.Errorf("%v", err)
	}
	if left := temporary(t, c.Dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	(&catest.CA{Dir: dir}).Check(t)
}

// A secret that is not encrypted is only in an encrypted backup. Temporary and hidden
// files are in none.
func TestBackupKeepsSecrets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	damage.File(t, filepath.Join(dir, "secrets", ".hidden.tmp1"), []byte("half a key"))
	var b bytes.Buffer
	if _, err := backup.Write(t.Context(), &b, backup.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	names := tarNames(t, b.Bytes())
	if slices.Contains(names, "secrets/password") || slices.Contains(names, "secrets/.hidden.tmp1") || names[0] != "pki.yaml" || names[len(names)-1] != "manifest.json" {
		t.Errorf("%q", names)
	}
	if names := tarNames(t, saved(t, dir)); !slices.Contains(names, "secrets/password") {
		t.Errorf("%q", names)
	}
	damage.File(t, filepath.Join(dir, "secrets", "more.key"), []byte("something"))
	if _, err := backup.Write(t.Context(), io.Discard, backup.Options{Dir: dir}); !errors.Is(err, backup.ErrClearSecret) {
		t.Errorf("a readable key: %v", err)
	}
	config, err := os.ReadFile(filepath.Join(dir, "pki.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	damage.File(t, filepath.Join(dir, "pki.yaml"), append(config, "database: postgres://pki@127.0.0.1:1/pki\n"...))
	if _, err := backup.Write(t.Context(), io.Discard, backup.Options{Dir: dir, Encrypted: true}); err == nil || !strings.Contains(err.Error(), "opening the record") {
		t.Errorf("on a PostgreSQL that is not there: %v", err)
	}
	if _, err := backup.Write(t.Context(), io.Discard, backup.Options{Dir: t.TempDir()}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("elsewhere: %v", err)
	}
}

// A backup that was changed, cut or made up is refused, and leaves nothing behind.
func TestRestoreRefuses(t *testing.T) {
	c := catest.Start(t, catest.Options{})
	good := saved(t, c.Dir)
	only := func(name string, f func(h *tar.Header, b []byte) []byte) []byte {
		return repack(t, good, func(h *tar.Header, b []byte) []byte {
			if h.Name == name {
				return f(h, b)
			}
			return b
		})
	}
	rename := func(to string) []byte {
		return only("certs/root_ca.crt", func(h *tar.Header, b []byte) []byte { h.Name = to; return b })
	}
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":  {nil, "no manifest"},
		"rubbish":  {[]byte(strings.Repeat("rubbish ", 200)), "reading the backup"},
		"cut":      {good[:len(good)/2], "reading the backup"},
		"a byte":   {only("secrets/enrolment.jwe", func(_ *tar.Header, b []byte) []byte { b[5] ^= 1; return b }), "not those of its manifest"},
		"missing":  {only("certs/root_ca.crt", func(*tar.Header, []byte) []byte { return nil }), "not those of its manifest"},
		"no end":   {only("manifest.json", func(*tar.Header, []byte) []byte { return nil }), "no manifest"},
		"no json":  {only("manifest.json", func(*tar.Header, []byte) []byte { return []byte("x") }), "manifest is not one"},
		"version":  {only("manifest.json", func(_ *tar.Header, b []byte) []byte { return bytes.Replace(b, []byte(`: 1,`), []byte(`: 2,`), 1) }), "version 2"},
		"above":    {rename("../root_ca.crt"), "does not belong"},
		"absolute": {rename("/etc/passwd"), "does not belong"},
		"deeper":   {rename("certs/a/b"), "does not belong"},
		"hidden":   {rename("certs/.x"), "does not belong"},
		"twice":    {rename("certs/current.json"), "does not belong"},
		"link": {only("certs/root_ca.crt", func(h *tar.Header, _ []byte) []byte {
			h.Typeflag, h.Linkname = tar.TypeSymlink, "/etc/passwd"
			return []byte{}
		}), "does not belong"},
		"too large": {only("certs/root_ca.crt", func(*tar.Header, []byte) []byte { return make([]byte, 2<<20) }), "does not belong"},
		"root": {only("manifest.json", func(_ *tar.Header, b []byte) []byte {
			return bytes.Replace(b, []byte(c.RootFingerprint), []byte("00"), 1)
		}), "not the one that the manifest names"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new")
			if _, err := backup.Restore(t.Context(), bytes.NewReader(tc.data), dir); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Error("something was left behind")
			}
		})
	}
	if _, err := backup.Restore(t.Context(), bytes.NewReader(good), c.Dir); !errors.Is(err, durable.ErrNotEmpty) {
		t.Errorf("over an authority: %v", err)
	}
}

// FuzzRestore: no input writes a file outside of the directory, and each one that is
// accepted is an authority.
func FuzzRestore(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "pki")
	if _, err := setup.Init(f.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		f.Fatal(err)
	}
	good := saved(f, dir)
	f.Add(good)
	f.Add(good[:1000])
	f.Add(repack(f, good, func(h *tar.Header, b []byte) []byte { h.Name = "../" + h.Name; return b }))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		_, err := backup.Restore(t.Context(), bytes.NewReader(data), filepath.Join(parent, "new"))
		entries, _ := os.ReadDir(parent)
		if err != nil && len(entries) > 0 || err == nil && len(entries) != 1 {
			t.Fatalf("%v, and %d files", err, len(entries))
		}
		if err == nil {
			if _, err := policy.Load(filepath.Join(parent, "new")); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// The backup of a record in PostgreSQL has it as a file, with its log.
func TestBackupOfPostgres(t *testing.T) {
	c := catest.Start(t, catest.Options{Database: postgres.Database(t)})
	cert := issued(t, c)
	c.Revoke(t, cert.SerialNumber.String())
	dir := filepath.Join(t.TempDir(), "new")
	res, err := backup.Restore(t.Context(), bytes.NewReader(saved(t, c.Dir)), dir)
	if err != nil || !strings.HasPrefix(res.Elsewhere, "postgres") {
		t.Fatalf("%+v %v", res, err)
	}
	s, err := store.Open(t.Context(), filepath.Join(dir, "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if e, err := s.Get(t.Context(), cert.SerialNumber.String()); err != nil || !slices.Equal(e.DER, cert.Raw) || e.Revocation == nil {
		t.Errorf("%+v %v", e.Revocation, err)
	}
	if mark, err := s.RevocationMark(t.Context()); err != nil || mark != 1 {
		t.Errorf("mark %d %v", mark, err)
	}
}
