package spool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/fileperm"
)

// claimContent is the content of a claim as the uploader reads it. Each time it
// is opened it must be the file that was claimed.
type claimContent struct {
	spool *Spool
	item  *item

	mu   sync.Mutex
	over bool // the upload has returned; a transport may still read
}

// finish waits for an intent that is being written. After it, none is.
func (c *claimContent) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

// Name implements [ingestclient.Content].
func (c *claimContent) Name() string { return filepath.Base(c.item.name) }

// Open implements [ingestclient.Content].
func (c *claimContent) Open() (io.ReadCloser, int64, error) {
	f, err := c.spool.openClaim(c.item)
	if err != nil {
		return nil, 0, err
	}
	return &openClaim{f, c}, c.item.seen.Size, nil
}

type openClaim struct {
	*os.File
	claim *claimContent
}

// Unchanged is asked when all content is sent, and the end of the request is
// not. It is the last moment to write the intent down: before, the element has
// nothing that it could store.
func (o *openClaim) Unchanged() error {
	c := o.claim
	info, err := o.Stat()
	if err == nil && identify(info) == c.item.seen {
		info, err = os.Lstat(c.spool.layout.content(c.item.id, c.item.name))
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ingestclient.ErrFileChanged, err)
	case identify(info) != c.item.seen:
		return fmt.Errorf("%w: it was written to, or another file took its place", ingestclient.ErrFileChanged)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return errOver
	}
	return c.spool.announce(c.item)
}

var errOver = errors.New("the upload is over")

// readOwn reads a small file of the state without following a link or waiting
// for the writer of a FIFO.
func readOwn(path string) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", path))
	}
	return io.ReadAll(f)
}

// openClaim opens the file of a claim, and no other: no link is followed, a FIFO
// is not waited for, and what is opened must be what was claimed.
func (s *Spool) openClaim(it *item) (*os.File, error) {
	f, err := openRegular(s.layout.content(it.id, it.name))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || identify(info) != it.seen) {
		err = fmt.Errorf("%w: it is not what was claimed", ingestclient.ErrFileChanged)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// hash is the SHA-256 of a claimed file in hex.
func (s *Spool) hash(ctx context.Context, it *item) (string, error) {
	f, err := s.openClaim(it)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read from
	h := sha256.New()
	for {
		if err := context.Cause(ctx); err != nil {
			return "", errors.Join(context.Canceled, err)
		}
		switch _, err := io.CopyN(h, f, 8<<20); {
		case errors.Is(err, io.EOF):
			return hex.EncodeToString(h.Sum(nil)), nil
		case err != nil:
			return "", err
		}
	}
}

// ours reports whether the file belongs to the user that we run as.
func ours(info fs.FileInfo) bool {
	uid, ok := fileperm.Owner(info)
	return ok && uid == os.Geteuid()
}

// ownedDirectory is nil for a directory that nobody but us can change.
func ownedDirectory(path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory, and whoever made it could redirect what is kept there; remove it", path)
	case !ours(info):
		return fmt.Errorf("%s belongs to another user, who could change what is kept there; remove it", path)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s has mode %04o: others could change what is kept there; chmod go-w", path, info.Mode().Perm())
	}
	return nil
}

// ownedFile is nil for a file that is ours, or is not there yet.
func ownedFile(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file; remove it", path)
	case !ours(info):
		return fmt.Errorf("%s belongs to another user; remove it", path)
	}
	return nil
}
