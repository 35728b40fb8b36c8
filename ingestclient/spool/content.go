package spool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
)

// claimContent is the content of a claim for the uploader. Each Open checks that the
// file is the one that was claimed.
type claimContent struct {
	spool *Spool
	item  *item

	mu   sync.Mutex
	over bool // the upload has returned; its transport may still read
}

// finish waits for an intent that is being written. After it, none is written any more.
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
	return &claimReader{f, c, c.item.seen}, c.item.seen.Size, nil
}

// claimReader is an open claim.
type claimReader struct {
	*os.File
	claim *claimContent
	seen  fileat.ID // of the item; a copy, because the loop may change the item once the upload has returned
}

// Unchanged is called when all content is sent, but not the end of the request. Until then
// the element has no complete request and stores nothing. So this is the last moment to
// record the intent.
func (o *claimReader) Unchanged() error {
	c := o.claim
	info, err := o.Stat()
	if err == nil && fileat.IDOf(info) == o.seen {
		info, err = c.spool.layout.state.Lstat(contentPath(c.item.id, c.item.name))
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ingestclient.ErrFileChanged, err)
	case fileat.IDOf(info) != o.seen:
		return fmt.Errorf("%w: it was written to, or another file took its place", ingestclient.ErrFileChanged)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return errUploadEnded
	}
	return c.spool.journalIntent(c.item)
}

var errUploadEnded = errors.New("the upload is over")

// readOwn reads a small file of the state. It does not follow a link, and does not
// wait for the writer of a FIFO.
func (l layout) readOwn(name string) ([]byte, error) {
	if err := l.checkFile(name); err != nil {
		return nil, err
	}
	f, err := l.openFile(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	info, err := f.Stat()
	if err == nil {
		err = checkOwnedFile(l.path(name), info)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// openClaim opens the file of a claim. It does not follow a link and does not wait for
// the writer of a FIFO; the open file must be the one that was claimed.
func (s *Spool) openClaim(it *item) (*os.File, error) {
	f, err := s.layout.openFile(contentPath(it.id, it.name))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || fileat.IDOf(info) != it.seen) {
		err = fmt.Errorf("%w: it is not what was claimed", ingestclient.ErrFileChanged)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// hash returns the SHA-256 of a claimed file in hex.
func (s *Spool) hash(ctx context.Context, it *item) (string, error) {
	f, err := s.openClaim(it)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read from
	return digest(ctx, f)
}

// digest returns the SHA-256 of the rest of f in hex.
func digest(ctx context.Context, f io.Reader) (string, error) {
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
