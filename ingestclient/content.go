package ingestclient

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
)

// Content is what an upload sends. It can be opened more than once.
type Content interface {
	// Name is the file name told to the Storage Element; its directory is dropped.
	Name() string
	// Open opens the content at its start and returns its size in bytes. A reader that
	// has fewer bytes, or more, ends the upload with [ErrFileChanged]. If the reader has
	// a method Unchanged() error, it is called after the last byte, and its error ends
	// the upload too. All this happens before the body is complete, so that content in
	// the middle of a change is never stored.
	Open() (io.ReadCloser, int64, error)
}

type fileContent string

// FileContent sends the regular file at path. Each attempt opens it anew; a file
// whose size, modification time or inode changes while it is read ends the
// upload with [ErrFileChanged].
func FileContent(path string) Content { return fileContent(path) }

func (p fileContent) Name() string { return filepath.Base(string(p)) }

func (p fileContent) Open() (io.ReadCloser, int64, error) {
	// Stat comes before Open, because Open of a FIFO waits for its writer.
	if info, err := os.Stat(string(p)); err != nil {
		return nil, 0, err // *fs.PathError: names the path
	} else if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("opening %s: not a regular file", string(p))
	}
	f, err := os.Open(string(p))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("opening %s: not a regular file", string(p))
	}
	if err != nil {
		_ = f.Close() // read only: nothing to lose
		return nil, 0, err
	}
	return &openFile{File: f, path: string(p), before: info}, info.Size(), nil
}

type openFile struct {
	*os.File
	path   string
	before fs.FileInfo
}

// Unchanged returns an error if the open file has changed since Open, or if the path leads
// to another file now.
func (f *openFile) Unchanged() error {
	now, err := f.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFileChanged, err)
	}
	there, err := os.Stat(f.path)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrFileChanged, err)
	case now.Size() != f.before.Size():
		return fmt.Errorf("%w: size was %d, is %d", ErrFileChanged, f.before.Size(), now.Size())
	case !now.ModTime().Equal(f.before.ModTime()):
		return fmt.Errorf("%w: it was written to", ErrFileChanged)
	case !os.SameFile(f.before, there):
		return fmt.Errorf("%w: another file took its place", ErrFileChanged)
	}
	return nil
}

type readerContent struct {
	name string
	r    io.ReaderAt
	size int64
}

// ReaderContent sends all of r, which must have size bytes: fewer or more end the upload with
// [ErrFileChanged]. Each attempt reads from the begin. For content in memory r is a
// bytes.Reader or a strings.Reader.
func ReaderContent(name string, r io.ReaderAt, size int64) Content {
	return &readerContent{name, r, size}
}

func (c *readerContent) Name() string { return c.name }

func (c *readerContent) Open() (io.ReadCloser, int64, error) {
	// Not a section of size bytes, which would hide that there are more.
	return io.NopCloser(io.NewSectionReader(c.r, 0, math.MaxInt64)), c.size, nil
}
