// Package backup is what operators do to a state directory from outside: save it
// while the authority runs, and make another one of what was saved.
//
//	n, err := backup.Write(ctx, w, backup.Options{Dir: dir, Encrypted: true})
//	res, err := backup.Restore(ctx, r, newDir)
//
// A backup is a tar: pki.yaml first, the files of certs/ and secrets/, the record,
// and at the end a manifest with the size and SHA-256 of each. Without its end it
// is none: an interrupted backup cannot be restored by mistake.
//
// The record is copied first and the files after it, so a rotation in between
// leaves a key too many, never a certificate without its issuer.
//
// The manifest tells damage, not forgery: encrypting what is written, to a
// recipient, is the caller's business. docs/operations.md says when to do what.
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
	manifestVersion = 1
)

// manifest is the last file of a backup.
type manifest struct {
	Version int                 `json:"version"`
	Created time.Time           `json:"created"`
	Root    string              `json:"root_fingerprint"`
	Files   map[string]fileFact `json:"files"`
}

type fileFact struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Options say what to save.
type Options struct {
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
// runs. The record is in it as an SQLite file, wherever it is now. The password of
// the keys is left out unless asked for, and a root key elsewhere (root_key) always.
// It returns how many files there are.
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

// mustBeItsRecord refuses a record that the authority would refuse: a backup of it
// would be taken for one of the authority.
func mustBeItsRecord(ctx context.Context, dir string) error {
	r, err := ca.StateDir(dir).OpenRecord(ctx)
	if err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	return r.Close()
}

// toSave lists pki.yaml and the files of certs/ and secrets/, and refuses secrets
// that anybody could read in the backup.
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
				continue // a temporary file of a write that runs, not ours, or newer than the record: a restore makes another marker
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
	// No owner and no names: whoever restores is the owner.
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
