package statedir_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// recordDir is a directory with a log key and a record of some entries.
func recordDir(t *testing.T, entries int) (dir string, key *translog.Key) {
	t.Helper()
	dir = t.TempDir()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = translog.NewKey(private); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, statedir.Path(dir, statedir.LogPublicFile), key.Verifier().String()+"\n")
	s, err := store.Create(t.Context(), statedir.Database(dir, ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	for range entries {
		if err := s.Tell(t.Context(), record.Event{At: time.Now(), Kind: kinds.Restored}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Sequence(t.Context(), key, translog.Head{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, key
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOpenRecord: the marker decides which record is opened.
func TestOpenRecord(t *testing.T) {
	dir, key := recordDir(t, 3)
	v, err := statedir.LogVerifier(dir)
	if err != nil || v.String() != key.Verifier().String() {
		t.Fatalf("%v %v", v, err)
	}
	open := func() (statedir.Opened, error) {
		t.Helper()
		in, err := statedir.OpenRecord(t.Context(), dir, "", v)
		if err == nil {
			err = in.Store.Close()
		}
		return in, err
	}
	in, err := open()
	if err != nil || in.Head.Size != 3 || in.Marker != (translog.Head{}) {
		t.Errorf("without a marker: %+v %v", in, err)
	}
	if err := statedir.WriteMarker(dir, in.Text); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(statedir.Path(dir, statedir.MarkerFile)); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v %v", info, err)
	}
	if in, err = open(); err != nil || in.Marker != in.Head {
		t.Errorf("with its own: %+v %v", in, err)
	}
	ahead, err := key.Sign(translog.Head{Size: 9, Root: in.Head.Root, Time: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey := recordDir(t, 0)
	foreign, err := otherKey.Sign(in.Head)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		marker string
		want   error
		text   string
	}{
		"ahead":   {string(ahead), store.ErrRolledBack, "pki.db: the record was rolled back: its log has 3 entries, and had 9"},
		"foreign": {string(foreign), nil, "reading the marker"},
		"rubbish": {"rubbish", nil, "reading the marker"},
	} {
		write(t, statedir.Path(dir, statedir.MarkerFile), tc.marker)
		_, err := open()
		if _, ok := errors.AsType[*statedir.RecordError](err); !ok || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) || errors.Is(err, translog.ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOpenRecordOfAnother: the key of the log says whose record it is.
func TestOpenRecordOfAnother(t *testing.T) {
	dir, _ := recordDir(t, 1)
	_, other := recordDir(t, 0)
	_, err := statedir.OpenRecord(t.Context(), dir, "", other.Verifier())
	if !errors.Is(err, translog.ErrForeign) || !strings.Contains(err.Error(), "it is the record of another authority") {
		t.Errorf("%v", err)
	}
	_, err = statedir.OpenRecord(t.Context(), dir, "absent.db", other.Verifier())
	if !errors.Is(err, store.ErrNoRecord) {
		t.Errorf("%v", err)
	}
	_, err = statedir.OpenRecord(t.Context(), dir, "postgres://127.0.0.1:1/none", other.Verifier())
	if _, refused := errors.AsType[*statedir.RecordError](err); err == nil || refused {
		t.Errorf("a server that does not answer is no loss: %v", err)
	}
}

func TestLogVerifierFails(t *testing.T) {
	dir := t.TempDir()
	if _, err := statedir.LogVerifier(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := statedir.WriteMarker(dir, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, statedir.Path(dir, statedir.LogPublicFile), "x")
	if _, err := statedir.LogVerifier(dir); err == nil || !strings.Contains(err.Error(), "log.pub") {
		t.Errorf("%v", err)
	}
}
