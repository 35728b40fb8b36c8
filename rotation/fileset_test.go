package rotation_test

import (
	"context"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// material is what a file source yields first.
func material(t testing.TB, f files.Set) (rotation.Material, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got rotation.Material
	err := files.Source(f).Watch(ctx, func(m rotation.Material) error { got = m; cancel(); return nil })
	if ctx.Err() != nil {
		err = nil
	}
	return got, err
}

// TestFileSets expects what each form of a set yields.
func TestFileSets(t *testing.T) {
	ca := newCA(t, "ca")
	dir, odd := t.TempDir(), filepath.Join(t.TempDir(), "тлс \"a\n b\" é")
	m, other := ca.leaf(t, "svc", nil), ca.leaf(t, "other", nil)
	lists := append(pemfile.EncodeCertificates([]*x509.Certificate{ca.inter}),
		pemfile.EncodeRevocationLists([]*x509.RevocationList{newList(t, ca, false, 1), newList(t, ca, true, 1)})...)
	for _, d := range []string{dir, odd} {
		write(t, d, m)
		write(t, filepath.Join(d, "other"), other)
		put(t, filepath.Join(d, "lists.pem"), lists)
		put(t, filepath.Join(d, "both.pem"), append(keyPEM(t, m), chainPEM(t, m)...))
		put(t, filepath.Join(d, "crl.pem"), lists)
	}
	bare := t.TempDir()
	write(t, bare, m)
	t.Chdir(dir)
	type want struct{ chain, others, roots, lists, issuers int }
	for name, c := range map[string]struct {
		f files.Set
		want
	}{
		"directory":            {files.Set{Dir: dir}, want{2, 0, 1, 2, 1}},
		"directory, no list":   {files.Set{Dir: bare}, want{2, 0, 1, 0, 0}},
		"odd directory":        {files.Set{Dir: odd, Others: nil}, want{2, 0, 1, 2, 1}},
		"list elsewhere":       {files.Set{Dir: bare, CRL: filepath.Join(dir, "lists.pem")}, want{2, 0, 1, 2, 1}},
		"names in a directory": {files.Set{Dir: dir, Cert: "both.pem", CA: "ca.crt", CRL: "lists.pem"}, want{2, 0, 1, 2, 1}},
		"working directory":    {files.Set{Cert: "tls.crt", Key: "tls.key", CA: "ca.crt"}, want{2, 0, 1, 0, 0}},
		"same name twice":      {files.Set{Dir: dir, Cert: "both.pem", Key: "both.pem", CA: "ca.crt"}, want{2, 0, 1, 0, 0}},
		"others":               {files.Set{Dir: odd, Others: []files.Pair{{Cert: "other/tls.crt", Key: "other/tls.key"}, {Cert: "both.pem"}}}, want{2, 2, 1, 2, 1}},
		"identity only":        {files.Set{Dir: dir, Cert: "tls.crt", Key: "tls.key"}, want{2, 0, 0, 0, 0}},
		"trust only":           {files.Set{Dir: dir, CA: "ca.crt", CRL: "crl.pem"}, want{0, 0, 1, 2, 1}},
	} {
		got, err := material(t, c.f)
		has := want{len(got.Certificate.Certificate), len(got.Others), len(got.Roots), len(got.Revoked), len(got.Issuers)}
		if err != nil || has != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, has, err, c.want)
		}
		if (got.Certificate.Leaf == nil) != (c.chain == 0) || c.chain > 0 && !got.Certificate.Leaf.Equal(m.Certificate.Leaf) {
			t.Errorf("%s: wrong leaf", name)
		}
		if c.others > 0 && !got.Others[0].Leaf.Equal(other.Certificate.Leaf) {
			t.Errorf("%s: wrong other", name)
		}
	}
}

// TestFileSetRefusals expects that an invalid set ends Watch at once, and that a set
// whose files are incomplete ends it after 2 s.
func TestFileSetRefusals(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	ca := newCA(t, "ca")
	dir := t.TempDir()
	write(t, dir, ca.leaf(t, "svc", nil))
	put(t, filepath.Join(dir, "empty.pem"), nil)
	stranger := keyPEM(t, ca.leaf(t, "x", nil))
	put(t, filepath.Join(dir, "stranger.key"), stranger)
	put(t, filepath.Join(dir, "mixed.pem"), append(stranger, chainPEM(t, ca.leaf(t, "svc", nil))...))
	for want, f := range map[string]files.Set{
		"negative Poll -1ns":      {Dir: dir, Poll: -1},
		"want Dir, Cert or CA":    {},
		"want Cert beside Key":    {Dir: dir, Key: "tls.key"},
		"beside Key or Others":    {CA: "ca.crt", Others: []files.Pair{{Cert: "x"}}},
		"want CA beside CRL":      {Dir: dir, Cert: "tls.crt", Key: "tls.key", CRL: "crl.pem"},
		"want Cert in Others[1]":  {Dir: dir, Others: []files.Pair{{Cert: "x"}, {Key: "y"}}},
		"crl.pem: no such file":   {Dir: dir, CRL: "crl.pem"},
		"empty.pem: no PEM block": {Dir: dir, CRL: "empty.pem"},
		"stranger.key: it does":   {Dir: dir, Cert: "tls.crt", Key: "stranger.key"},
		"mixed.pem: it does not":  {Dir: dir, Cert: "mixed.pem"},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			if _, err := material(t, f); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

// TestFilesListAppears adds and removes the optional crl.pem of a directory.
func TestFilesListAppears(t *testing.T) {
	ca := newCA(t, "ca")
	dir := t.TempDir()
	write(t, dir, ca.leaf(t, "svc", nil))
	ctx, cancel := context.WithCancel(t.Context())
	got, ended := make(chan rotation.Material, 8), make(chan error, 1)
	go func() {
		ended <- files.Source(files.Set{Dir: dir}).Watch(ctx, func(m rotation.Material) error { got <- m; return nil })
	}()
	if m := <-got; m.Revoked != nil {
		t.Error("a list from nowhere")
	}
	put(t, filepath.Join(dir, "crl.pem"), pemfile.EncodeRevocationLists([]*x509.RevocationList{newList(t, ca, true, 1)}))
	if m := <-got; len(m.Revoked) != 1 {
		t.Errorf("%d lists, want the one that appeared", len(m.Revoked))
	}
	must(t, os.Remove(filepath.Join(dir, "crl.pem")))
	if m := <-got; m.Revoked != nil { // whether it may go is for the gate to say
		t.Errorf("%d lists after the file is gone", len(m.Revoked))
	}
	cancel()
	<-ended
}

// TestHalfASetAlone expects that the gate refuses half of an identity, which is for
// [rotation.Merge].
func TestHalfASetAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	dir := t.TempDir()
	write(t, dir, newCA(t, "ca").leaf(t, "svc", nil))
	for want, f := range map[string]files.Set{
		"trust bundle is empty":  {Dir: dir, Cert: "tls.crt", Key: "tls.key"},
		"private key is missing": {Dir: dir, CA: "ca.crt"},
	} {
		_, err := rotation.Open(t.Context(), rotation.Config{Source: files.Source(f), Logger: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
