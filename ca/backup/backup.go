// Package backup saves a state directory while the authority runs, and makes another
// state directory of what was saved.
//
//	n, err := backup.Write(ctx, w, backup.Options{Dir: dir, Encrypted: true})
//	res, err := backup.Restore(ctx, r, newDir)
//
// A backup is a tar: pki.yaml first, the files of certs/ and secrets/, the record,
// and at the end a manifest with the size and SHA-256 of each.
//
// The record is copied before the files, so a rotation in between leaves a key too
// many in the backup, and never a certificate without its issuer.
//
// The manifest shows damage, not forgery: anybody who can write a backup can write a
// manifest that fits. The caller encrypts what [Write] writes, to a recipient, and
// passes what it has decrypted to [Restore]. docs/operations.md says when.
//
// Invariants:
//
//   - A backup has every certificate that was issued before it, while the authority
//     goes on issuing (TestBackupWhileIssuing).
//   - A backup that was cut, changed or made up is not restored, and leaves nothing
//     behind (TestRestoreRefuses, TestRestoreChecksTheAuthority, FuzzRestore).
//   - No file is written outside of the new directory (FuzzRestore), and no more bytes
//     than the backup has (TestRestoreSparse, TestRestoreWritesWhatCameIn).
//   - A secret that is not encrypted is in no backup that is not encrypted, and the
//     password of the keys is in one only on request (TestBackupKeepsSecrets).
//   - The restored record says that it was restored, and from which head of the log
//     (TestRestoreMarks).
package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
)

const (
	manifestFile    = "manifest.json"
	manifestVersion = 1 // changes when an older program must not restore the backup
)

// manifest is the last file of a backup.
type manifest struct {
	Version int                 `json:"version"`
	Created time.Time           `json:"created"`
	Root    string              `json:"root_fingerprint"` // SHA-256 in hex, of the active root
	Files   map[string]fileFact `json:"files"`            // by name in the tar; all but the manifest
}

type fileFact struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Options say what to save.
type Options struct {
	// Dir is the state directory. While Write runs it has room for a copy of the record.
	Dir string
	// Encrypted says that what is written is encrypted on its way. Without it a
	// secret that is not encrypted by itself is refused ([ErrClearSecret]).
	Encrypted bool
	// WithPassword saves secrets/password, too: the backup alone is then the
	// authority. It needs Encrypted.
	WithPassword bool
}

// ErrClearSecret reports a secret that would be readable in a backup.
var ErrClearSecret = errors.New("it is not encrypted, and neither is the backup")

// Write writes a consistent backup of a state directory while the authority
// runs, and returns how many files are in it. The record is in it as an SQLite file,
// also if it is in PostgreSQL now. The password of the keys is left out unless asked
// for, and a root key outside of the directory (root_key) always.
//
// A record that the authority would refuse is a [ca.RecordError]. A process that is
// killed leaves a tar without a manifest, which [Restore] refuses, and a directory
// .backup-* in opt.Dir, which can be removed.
func Write(ctx context.Context, w io.Writer, opt Options) (n int, err error) {
	cfg, err := policy.Load(opt.Dir)
	if err != nil {
		return 0, err
	}
	if err := mustBeItsRecord(ctx, opt.Dir); err != nil {
		return 0, err
	}
	tmp, err := os.MkdirTemp(opt.Dir, ".backup-") // 0700, and on a disk that has room for a record
	if err != nil {
		return 0, fmt.Errorf("backing up: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	snapshot := filepath.Join(tmp, statedir.RecordFile)
	if err := store.Snapshot(ctx, statedir.Database(opt.Dir, cfg.Database), snapshot); err != nil {
		return 0, err
	}
	root, err := ca.StateDir(opt.Dir).ActiveRoot()
	if err != nil {
		return 0, err
	}
	names, err := toSave(opt)
	if err != nil {
		return 0, fmt.Errorf("backing up: %w", err)
	}
	b := &writer{tar: tar.NewWriter(w), manifest: manifest{
		Version: manifestVersion, Created: time.Now().UTC(), Root: certs.Fingerprint(root), Files: make(map[string]fileFact),
	}}
	for _, name := range names {
		if err := b.add(ctx, name, statedir.Path(opt.Dir, name)); err != nil {
			return 0, fmt.Errorf("backing up %s: %w", name, err)
		}
	}
	if err := b.add(ctx, statedir.RecordFile, snapshot); err != nil {
		return 0, fmt.Errorf("backing up the record: %w", err)
	}
	return len(b.manifest.Files), b.finish()
}

// mustBeItsRecord refuses a record that the authority would refuse. Otherwise a backup
// of the record of another authority, or of an older one, could replace a good backup.
func mustBeItsRecord(ctx context.Context, dir string) error {
	r, err := ca.StateDir(dir).OpenRecord(ctx)
	if err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	return r.Close()
}

// toSave returns the names of the files to save, pki.yaml first: those of certs/ and
// secrets/ that [Restore] takes. The error is [ErrClearSecret] for a secret that would
// be readable in the backup.
func toSave(opt Options) ([]string, error) {
	names := []string{statedir.ConfigFile}
	for _, dir := range []string{"certs", "secrets"} {
		entries, err := os.ReadDir(statedir.Path(opt.Dir, dir))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			name := dir + "/" + e.Name()
			if !e.Type().IsRegular() || !backupName.MatchString(name) || name == statedir.PasswordFile && !opt.WithPassword || name == statedir.MarkerFile {
				continue // temporary, unknown, or a marker that may be newer than the copy of the record: a restore makes another one
			}
			if dir == "secrets" && !opt.Encrypted {
				if err := wantEncrypted(statedir.Path(opt.Dir, name)); err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
			}
			names = append(names, name)
		}
	}
	return names, nil
}

func wantEncrypted(path string) error {
	encrypted, err := statedir.Encrypted(path)
	if err == nil && !encrypted {
		err = ErrClearSecret
	}
	return err
}

// writer writes files and keeps what the manifest says of them.
type writer struct {
	tar      *tar.Writer
	manifest manifest
}

// add writes one file with the size that it has when it is opened. A file that is cut
// while it is read fails in the tar writer; certificates and keys are replaced as whole
// files, so none of them changes under the reader.
func (b *writer) add(ctx context.Context, name, path string) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read from
	info, err := in.Stat()
	if err != nil {
		return err
	}
	// The header has no owner: the files belong to the user who restores them.
	if err := b.tar.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: int64(durable.Private), Size: info.Size(), ModTime: info.ModTime().Truncate(time.Second)}); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(b.tar, sum), io.LimitReader(in, info.Size()))
	if err != nil {
		return err
	}
	b.manifest.Files[name] = fileFact{n, hex.EncodeToString(sum.Sum(nil))}
	return nil
}

func (b *writer) finish() error {
	data, err := json.MarshalIndent(b.manifest, "", "  ")
	if err != nil {
		return err
	}
	err = b.tar.WriteHeader(&tar.Header{Name: manifestFile, Typeflag: tar.TypeReg, Mode: int64(durable.Private), Size: int64(len(data)), ModTime: b.manifest.Created.Truncate(time.Second)})
	if err == nil {
		_, err = b.tar.Write(data)
	}
	if err = errors.Join(err, b.tar.Close()); err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	return nil
}
