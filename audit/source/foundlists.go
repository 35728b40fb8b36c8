package source

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/artstore/artstore-pki/audit/cert"
)

// maxListsBytes bounds the lists of one directory with which certificates are compared.
const maxListsBytes = 16 << 20

// listHash matches the names that c_rehash of OpenSSL gives to lists.
var listHash = regexp.MustCompile(`^[0-9a-f]{8}\.r[0-9]+$`)

// isListName reports whether a file has the name of a revocation list.
func isListName(name string) bool {
	return strings.Contains(strings.ToLower(name), "crl") || listHash.MatchString(name)
}

// listsAt reads the revocation lists of a directory before its certificates, so that the
// certificates in it and below it can be compared with them. It looks at files with the
// name of a list only. A list in another file is a row, and is compared with nothing.
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

// revocations returns the lists in a file.
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
