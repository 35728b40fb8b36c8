//go:build !unix

package fileat

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"
)

// IDOf returns the ID of a file: size and modification time only.
func IDOf(info fs.FileInfo) ID {
	return ID{Size: info.Size(), MTime: info.ModTime().UnixNano()}
}

func openDir(parent *os.File, name string) (*os.File, error) {
	return os.Open(filepath.Join(parent.Name(), name))
}

func (p Entry) Open() (*os.File, error) { return os.Open(p.String()) }
func (p Entry) Rename(to Entry) error   { return os.Rename(p.String(), to.String()) }
func (p Entry) Link(to Entry) error     { return os.Link(p.String(), to.String()) }

func (p Entry) Same(other Entry) bool {
	a, err := os.Lstat(p.String())
	if err != nil {
		return false
	}
	b, err := os.Lstat(other.String())
	return err == nil && os.SameFile(a, b)
}

func (p Entry) Changed() time.Time { return time.Time{} }

func (p Entry) Exists() bool {
	_, err := os.Lstat(p.String())
	return err == nil
}

func FreeBytes(string) (int64, error) { return math.MaxInt64, nil }
