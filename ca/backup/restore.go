package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
)

// Bounds of what Restore takes. A backup comes from outside, so a wrong or malicious
// one must not fill the disk.
const (
	maxBackupFiles  = 10_000
	maxBackupFile   = 1 << 20 // bytes of each file but the record
	maxBackupRecord = 1 << 40 // bytes of the record
)

// backupName matches the files that a backup may have: none above the directory, none
// that is hidden, none on a third level.
var backupName = regexp.MustCompile(`^(pki\.yaml|pki\.db|manifest\.json|(certs|secrets)/[A-Za-z0-9][A-Za-z0-9._@-]{0,200})$`)

// Result says what was restored.
type Result struct {
	Created         time.Time // of the backup
	RootFingerprint string    // SHA-256 of the active root, in hex
	// Elsewhere is the database that pki.yaml names, if that is not pki.db. The record
	// is in pki.db all the same: it must be migrated, or pki.yaml changed.
	Elsewhere string
	Password  bool          // secrets/password was in the backup
	Log       translog.Head // head of the log in the backup
	// NoHead says that it had none, as in a backup from before there was a log. The
	// authority then starts only after [ca.StateDir.AcceptLoss].
	NoHead bool
}

// Restore makes a state directory from a backup. It refuses a directory that is
// not empty ([durable.ErrNotEmpty]). The record gets an event, [kinds.Restored], and
// the directory a marker that names the head of its log.
//
// The files are written into a staging directory, which is moved into place at the
// end, after every file has been compared with the manifest. After an error nothing is
// left; a process that is killed leaves the staging directory, which does not stop the
// next Restore.
func Restore(ctx context.Context, r io.Reader, dir string) (_ Result, err error) {
	staging, err := statedir.Begin(dir)
	if err != nil {
		return Result{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, staging.Discard())
		}
	}()
	b := &reader{dir: staging.Dir, seen: make(map[string]fileFact), input: counter{in: r}}
	for _, sub := range []string{"certs", "secrets"} {
		if err := durable.MkdirAll(b.path(sub)); err != nil {
			return Result{}, fmt.Errorf("making a directory: %w", err)
		}
	}
	m, err := b.readAll(ctx, tar.NewReader(&b.input))
	if err != nil {
		return Result{}, fmt.Errorf("reading the backup: %w", err)
	}
	res, err := b.finish(ctx, m)
	if err != nil {
		return Result{}, err
	}
	return res, staging.Publish()
}

type reader struct {
	dir   string
	yaml  []byte              // pki.yaml, which is written last
	seen  map[string]fileFact // to compare with the manifest
	input counter
	kept  int64 // bytes of all files
}

type counter struct {
	in io.Reader
	n  int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	return n, err
}

// sparse reports whether a file in a tar has holes (the PAX records GNU.sparse.* of
// GNU tar). Few bytes of it can become many on the disk, and [Write] makes none.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (b *reader) path(name string) string { return statedir.Path(b.dir, name) }

// readAll writes all files but pki.yaml, and compares them with the manifest.
func (b *reader) readAll(ctx context.Context, in *tar.Reader) (m manifest, err error) {
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return m, errors.New("it has no manifest: it was cut")
		}
		if err != nil {
			return m, err
		}
		_, again := b.seen[h.Name]
		most := int64(maxBackupFile)
		if h.Name == statedir.RecordFile {
			most = maxBackupRecord
		}
		switch {
		case ctx.Err() != nil:
			return m, ctx.Err()
		case h.Typeflag != tar.TypeReg, sparse(h), !backupName.MatchString(h.Name), again, h.Size > most, len(b.seen) >= maxBackupFiles:
			return m, fmt.Errorf("%.80q does not belong into a backup", h.Name)
		case h.Name == manifestFile:
			return b.compare(in)
		}
		if err := b.keep(h.Name, in); err != nil {
			return m, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// keep writes one file. pki.yaml stays in memory: it is written after the record was
// checked, because a directory with it is an authority.
func (b *reader) keep(name string, in io.Reader) (err error) {
	sum := sha256.New()
	in = io.TeeReader(noMore{b, in}, sum)
	var n int64
	if name == statedir.ConfigFile {
		b.yaml, err = io.ReadAll(in)
		n = int64(len(b.yaml))
	} else {
		n, err = writeStream(b.path(name), in, name)
	}
	b.seen[name] = fileFact{n, hex.EncodeToString(sum.Sum(nil))}
	return err
}

// noMore fails when the files have more bytes than were read of the backup. It is the
// guard for ways to expand a tar that sparse does not know.
type noMore struct {
	of *reader
	in io.Reader
}

func (r noMore) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	if r.of.kept += int64(n); r.of.kept > r.of.input.n {
		return 0, errors.New("it has more bytes than the backup")
	}
	return n, err
}

// writeStream writes a new file and flushes it to the disk. Certificates are public,
// all else is the owner's alone. It returns the number of bytes.
func writeStream(path string, in io.Reader, name string) (n int64, err error) {
	mode := durable.Private
	if strings.HasPrefix(name, "certs/") {
		mode = durable.Public
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(f, in)
	if err == nil {
		err = f.Sync()
	}
	return n, errors.Join(err, f.Close())
}

// compare reads the manifest, and returns an error unless it names exactly the files
// that were kept, with their sizes and digests.
func (b *reader) compare(in io.Reader) (m manifest, err error) {
	data, err := io.ReadAll(in)
	if err != nil {
		return m, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return m, errors.New("its manifest is not one")
	}
	if m.Version != manifestVersion {
		return m, fmt.Errorf("version %d is not %d, which this program knows", m.Version, manifestVersion)
	}
	if !maps.Equal(m.Files, b.seen) {
		return m, errors.New("its files are not those of its manifest: it was changed or damaged")
	}
	return m, nil
}

// finish checks that the files are those of an authority: configuration, trust, a sound
// record with a schema that this program knows. pki.yaml comes last, after all else is
// on the disk. The key password is not needed, so keys are not opened.
func (b *reader) finish(ctx context.Context, m manifest) (res Result, err error) {
	var cfg policy.Config
	if err := cfg.Decode(b.yaml); err != nil {
		return res, fmt.Errorf("reading configuration of the backup: %w", err)
	}
	root, err := ca.StateDir(b.dir).ActiveRoot()
	if err != nil {
		return res, err
	}
	res = Result{Created: m.Created, RootFingerprint: certs.Fingerprint(root), Elsewhere: cfg.Database}
	if res.RootFingerprint != m.Root {
		return res, errors.New("restoring: the root is not the one that the manifest names")
	}
	_, res.Password = b.seen[statedir.PasswordFile]
	in, err := store.Inspect(ctx, b.path(statedir.RecordFile))
	switch {
	case err != nil:
		return res, err
	case len(in.Problems) > 0:
		return res, fmt.Errorf("restoring: the record is damaged: %s", in.Problems[0])
	case in.Schema > in.Known:
		return res, fmt.Errorf("restoring: the record has schema version %d, this program knows %d", in.Schema, in.Known)
	}
	if res.Log, res.NoHead, err = b.settle(ctx, m.Created); err != nil {
		return res, err
	}
	for _, sub := range []string{"certs", "secrets", "."} {
		if err := durable.SyncDir(b.path(sub)); err != nil {
			return res, fmt.Errorf("restoring: %w", err)
		}
	}
	if err := durable.WriteNew(b.path(statedir.ConfigFile), b.yaml, durable.Public); err != nil {
		return res, fmt.Errorf("writing the configuration: %w", err)
	}
	return res, nil
}

// settle adds the event [kinds.Restored] to the record and writes the marker of its
// head. Without the public key of the log, or without a head, there is nothing to
// compare with at the start, so none is true and the operator has to accept that.
func (b *reader) settle(ctx context.Context, created time.Time) (head translog.Head, none bool, err error) {
	rec, err := store.Open(ctx, b.path(statedir.RecordFile))
	if err != nil {
		return head, false, err
	}
	defer func() { err = errors.Join(err, rec.Close()) }()
	v, err := statedir.LogVerifier(b.dir)
	if errors.Is(err, os.ErrNotExist) {
		return head, true, nil
	}
	if err != nil {
		return head, false, err
	}
	text, head, err := rec.Resume(ctx, v, head)
	if errors.Is(err, store.ErrNoHead) {
		return head, true, nil
	}
	if err == nil {
		err = rec.Tell(ctx, record.Event{At: time.Now(), Kind: kinds.Restored, Caller: "operator",
			Detail: fmt.Sprintf("from a backup of %s, from the record of %s", created.UTC().Format(time.RFC3339), head)})
	}
	if err == nil {
		err = statedir.WriteMarker(b.dir, text)
	}
	if err != nil {
		return head, false, fmt.Errorf("restoring: %w", err)
	}
	return head, false, nil
}
