package statedir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/durable"
)

// The marker is the newest signed head of the log that this directory knows. It is beside
// the keys and not in the record, so that an older state of the record can be detected. It
// is written after the head was committed, so a crash leaves a marker that is older than
// the record, never a newer one.
const (
	MarkerFile    = "certs/log.head"
	LogPublicFile = "certs/log.pub"
)

// LogVerifier reads the public key of the log.
func LogVerifier(dir string) (translog.Verifier, error) {
	path := Path(dir, LogPublicFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return translog.Verifier{}, fmt.Errorf("reading the public key of the log: %w", err)
	}
	v, err := translog.ParseVerifier(string(data))
	if err != nil {
		return v, fmt.Errorf("reading %s: %w", path, err)
	}
	return v, nil
}

// ReadMarker returns the head of the marker; ok is false if there is no marker.
func ReadMarker(dir string, v translog.Verifier) (head translog.Head, ok bool, err error) {
	path := Path(dir, MarkerFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return head, false, nil
	}
	if err != nil {
		return head, false, fmt.Errorf("reading the marker: %w", err)
	}
	if head, err = v.Open(text); err != nil {
		// Not wrapped: a marker with a wrong signature does not mean that the record is another
		// authority's, which is what [translog.ErrForeign] would say.
		return head, false, fmt.Errorf("reading the marker %s: %v", path, err)
	}
	return head, true, nil
}

// WriteMarker replaces the marker with a signed head, which must be committed already.
func WriteMarker(dir string, head []byte) error {
	if err := durable.WriteFile(Path(dir, MarkerFile), head, durable.Public); err != nil {
		return fmt.Errorf("writing the marker: %w", err)
	}
	return nil
}

// RecordError says why an authority does not start with a record. Err is
// [store.ErrNoRecord], [store.ErrNoHead], [store.ErrRolledBack],
// [translog.ErrForeign], or an error of the marker or of the database.
type RecordError struct {
	Where string        // the record, for messages
	Known translog.Head // of the marker; zero if there is none
	Err   error
}

func (e *RecordError) Error() string {
	text := e.Err.Error()
	switch {
	case errors.Is(e.Err, store.ErrNoRecord): // its text names the place
		return text
	case errors.Is(e.Err, translog.ErrForeign):
		text = "it is the record of another authority: its log is not signed by the key in " + LogPublicFile
	}
	return fmt.Sprintf("opening the record %s: %s", e.Where, text)
}

func (e *RecordError) Unwrap() error { return e.Err }

// Opened is a record of this authority whose log contains the marker.
type Opened struct {
	DB     *sqldb.DB
	Store  *store.Store  // on DB; closing it closes the database
	Text   []byte        // the newest signed head of its log
	Head   translog.Head // the same, opened
	Marker translog.Head // zero if there is no marker yet
}

// OpenRecord opens the record of a directory. setting is database of pki.yaml. A record that
// is missing, another authority's or older than the marker is a [RecordError], and nothing
// is made in its place.
func OpenRecord(ctx context.Context, dir, setting string, v translog.Verifier) (out Opened, err error) {
	where := Database(dir, setting)
	if out.Marker, _, err = ReadMarker(dir, v); err != nil {
		return out, &RecordError{Where: sqldb.Name(where), Err: err}
	}
	if out.DB, err = sqldb.Open(ctx, where); err != nil {
		if errors.Is(err, store.ErrNoRecord) {
			err = &RecordError{sqldb.Name(where), out.Marker, err}
		}
		return out, err
	}
	out.Store = store.New(out.DB)
	if out.Text, out.Head, err = out.Store.Resume(ctx, v, out.Marker); err != nil {
		err = &RecordError{sqldb.Name(where), out.Marker, err}
		return out, errors.Join(err, out.Store.Close())
	}
	return out, nil
}
