//go:build !unix

package spool

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"
)

func identify(info fs.FileInfo) identity {
	return identity{Size: info.Size(), MTime: info.ModTime().UnixNano()}
}

func openDir(parent *os.File, name string) (*os.File, error) {
	return os.Open(filepath.Join(parent.Name(), name))
}

func (p place) open() (*os.File, error) { return os.Open(p.String()) }
func (p place) rename(to place) error   { return os.Rename(p.String(), to.String()) }
func (p place) link(to place) error     { return os.Link(p.String(), to.String()) }

func (p place) same(other place) bool {
	a, err := os.Lstat(p.String())
	if err != nil {
		return false
	}
	b, err := os.Lstat(other.String())
	return err == nil && os.SameFile(a, b)
}

func (p place) changed() time.Time { return time.Time{} }

func (p place) exists() bool {
	_, err := os.Lstat(p.String())
	return err == nil
}

func freeBytes(string) (int64, error) { return math.MaxInt64, nil }
