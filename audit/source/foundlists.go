package source

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/artstore/artstore-pki/audit/cert"
)

// maxListsBytes bounds the lists of one directory that its certificates are compared with.
const maxListsBytes = 16 << 20

// listHash is what c_rehash calls a list.
var listHash = regexp.MustCompile(`^[0-9a-f]{8}\.r[0-9]+$`)

func isListName(name string) bool {
	return strings.Contains(strings.ToLower(name), "crl") || listHash.MatchString(name)
}

// listsAt reads the revocation lists of a directory before its certificates, so that
// those in it and below it are compared with them. It goes by names; a list under another
// one is a row, and nothing is compared with it.
func (w *walk) listsAt(path string, entries []fs.DirEntry) (out []*cert.List) {
	size := 0
	for _, e := range entries {
		full := filepath.Join(path, e.Name())
		if !isListName(e.Name()) || e.IsDir() || !w.pathFilter.matchesFile(w.root, full) {
			continue
		}
		f := w.readUpTo(maxFile, full, false)
		if f == nil || f.deferred != nil {
			continue
		}
		f.path = full
		for _, l := range f.revocations() {
			if size += l.Size(); size > maxListsBytes {
				w.omit(full, manyLists)
				return out
			}
			out = append(out, l)
		}
	}
	return out
}

// revocations are the lists in a file.
func (f *file) revocations() (out []*cert.List) {
	for _, p := range f.parts {
		if p.Document == nil || p.Document.List == nil {
			continue
		}
		l := cert.NewList(f.path+p.In.Suffix(), p.Document.List)
		l.Found = true
		out = append(out, l)
	}
	return out
}
